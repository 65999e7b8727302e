"""Study of rare features: closed forms of the autoencoder, chains, decoders that share no weights, directions with a planted answer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.linalg.coherence import coherence
from ontogeny.studies import rare_features
from ontogeny.studies.rare_features._autoencoder import autoencoder_directions
from ontogeny.studies.rare_features._chains import batch_counts, draw_chains, sequence_weights
from ontogeny.studies.rare_features._decoders import StackedDecoders, sequence_losses
from ontogeny.studies.rare_features._measures import feature_directions
from ontogeny.studies.rare_features._settings import Settings


def test_linear_autoencoder_spans_its_most_frequent_features() -> None:
    probabilities = torch.tensor([[0.9, 0.8, 0.15, 0.1, 0.05], [0.05, 0.1, 0.15, 0.8, 0.9]])
    w = autoencoder_directions(probabilities, 2, steps=1200, seed=0, linear=True, batch=64)
    for one, frequent in zip(w @ w.mT, ((0, 1), (3, 4)), strict=True):
        wanted = torch.zeros(5, 5)
        wanted[list(frequent), list(frequent)] = 1
        assert (one - wanted).abs().max() < 0.15


def test_sparse_features_form_antipodal_pairs() -> None:
    sparse = torch.full((1, 4), 0.02)
    w = autoencoder_directions(sparse, 2, steps=800, seed=0)[0]
    # Four sparse features in two dimensions: two antipodal pairs, each a whole axis (arXiv:2209.10652).
    assert coherence(w).min() > 0.9
    cosines = torch.nn.functional.normalize(w) @ torch.nn.functional.normalize(w).T
    assert torch.allclose(cosines.sort(dim=1).values[:, 0], torch.full((4,), -1.0), atol=0.1)


def test_chains_are_different_cycles_and_sequences_are_unique() -> None:
    chains = draw_chains(3, 4, 16, seed=3)
    assert len({tuple(row) for row in chains.ids.tolist()}) == 12
    for row in chains.ids:
        assert sorted(row[:4].tolist()) == [0, 1, 2, 3]
        assert torch.equal(row[:12], row[4:])
    weights = sequence_weights(chains, torch.tensor([0.01, 1.0]))
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert weights[0, :4].sum() / weights[0, 4:8].sum() == pytest.approx(0.01)
    counts = torch.stack([batch_counts(weights, 64, step, 0) for step in range(300)])
    assert (counts.sum(2) == 64).all()
    assert torch.allclose(counts.mean(0) / 64, weights, atol=0.01)


def test_stacked_decoders_are_causal_and_share_no_weights() -> None:
    torch.manual_seed(0)
    shape = dict(vocabulary=4, length=16, width=4, layers=2, heads=2, hidden=8)
    network = StackedDecoders([0, 0, 1], **shape)
    ids = draw_chains(3, 4, 16, seed=0).ids
    logits = network(ids)
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    changed = ids.clone()
    changed[:, 10] = (changed[:, 10] + 1) % 4
    assert torch.allclose(network(changed)[:, :, :10], logits[:, :, :10], atol=1e-6)
    assert not torch.allclose(network(changed)[:, :, 10:], logits[:, :, 10:], atol=1e-3)
    # The loss of one model has no gradient in the weights of another, so one optimiser trains them apart.
    sequence_losses(logits, ids)[1].sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad[[0, 2]].abs().max() == 0
        assert parameter.grad[1].abs().max() > 0


def test_directions_of_planted_features() -> None:
    chains = draw_chains(3, 4, 16, seed=1)
    basis = torch.eye(12)
    stream = basis[None, :, None].expand(1, 12, 16, 12) + 0.01 * torch.randn(
        1, 12, 16, 12, generator=torch.Generator().manual_seed(0)
    )
    for directions in feature_directions(stream, chains.ids).values():
        assert (directions[0] * basis).sum(1).min() > 0.9, "each feature has an axis of its own"
        assert coherence(directions[0]).max() < 0.3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratios": (0.1, 1.0)}, "`ratios` must be at least three"),
        ({"ratios": (0.0, 0.1, 1.0)}, "`ratios`"),
        ({"ratios": (0.1, 0.3, 0.5)}, "`ratios`"),
        ({"ratios": (0.3, 0.1, 1.0)}, "`ratios`"),
        ({"chains": 1}, "`chains` must be at least 2"),
        ({"chains": 7}, "`chains` must be at most 6"),
        ({"states": 1}, "`states`"),
        ({"first": 12}, "`first` must leave"),
        ({"first": 0}, "`first`"),
        ({"width": 5}, "`width` must be at least 2 and a multiple"),
        ({"heads": 0}, "`heads`"),
        ({"units": 12}, "`units` between"),
        ({"on": 0.0}, "`on` above 0"),
        ({"steps": 0}, "`steps`"),
        ({"draws": 1}, "`draws`"),
        ({"rate": 0.0}, "`rate`"),
    ],
)
def test_rejects_settings_that_cannot_be_measured(change: dict[str, object], words: str, tmp_path: Path) -> None:
    settings = replace(Settings(steps=1, toy_steps=1), **change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=words):
        list(rare_features.run(settings, Lab("rare_features", 0, tmp_path)))
