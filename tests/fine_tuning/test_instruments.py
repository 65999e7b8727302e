"""Jacobian norms against finite differences, and cluster scores of planted clusters."""

import pytest
import torch

from ontogeny.fine_tuning.cluster_scores import cluster_scores
from ontogeny.fine_tuning.jacobian_norm import jacobian_norms
from tests.helpers.tiny_models import VOCAB, outspoken


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_jacobian_norm_equals_finite_differences(family: str, tiny) -> None:
    model = outspoken(tiny(family))
    prompts = [torch.tensor([5, 17, 40]), torch.tensor([9, 3])]
    exact = jacobian_norms(model, prompts, probes=VOCAB)
    draws = [jacobian_norms(model, prompts, probes=16, seed=seed) for seed in range(8)]
    torch.testing.assert_close(torch.stack(draws).square().mean(0).sqrt(), exact, rtol=0.15, atol=0)
    network, eps = model.network.double(), 1e-5
    for ids, norm in zip(prompts, exact, strict=True):
        embedded = network.get_input_embeddings()(ids).detach()
        nudges = eps * torch.eye(embedded.numel(), dtype=torch.float64).view(-1, *embedded.shape)
        with torch.no_grad():
            above, below = (network(inputs_embeds=embedded + sign * nudges).logits[:, -1] for sign in (1, -1))
        slopes = (above - below) / (2 * eps)
        assert float((slopes - slopes.mean(1, keepdim=True)).norm()) == pytest.approx(float(norm), rel=1e-3)


def test_cluster_scores_find_planted_clusters_and_none_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    positive = torch.arange(80) % 2 == 0
    fold = (torch.arange(80) // 2) % 2
    noise = torch.randn(1, 80, 16, generator=generator)
    planted = noise + 20 * positive[None, :, None]
    for x, expected in ((planted, 1.0), (noise, 0.0)):
        scores = cluster_scores(x, positive, fold)
        assert scores.abs().max() <= 1
        gap = scores[0, positive].mean() - scores[0, ~positive].mean()
        assert float(gap) / 2 == pytest.approx(expected, abs=0.15)
    # In sample, noise would look like two clusters: the centre that holds an example is the nearer one.
    assert cluster_scores(noise, positive, torch.zeros(80, dtype=torch.long)).isnan().all(), (
        "no examples outside the fold"
    )
    assert cluster_scores(torch.ones(1, 80, 4), positive, fold).isnan().all(), "centres that coincide"
