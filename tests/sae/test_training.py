"""Training of sparse autoencoders: planted directions are recovered, seeds do not disturb each other, and a killed training goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from ontogeny.errors import BadInput
from ontogeny.sae import ActivationChunks, SaeBudget, SaeSettings, SparseAutoencoder, train_autoencoders

WIDTH, PLANTED, TOKENS = 24, 32, 3000
KINDS = [
    SaeSettings("topk", 48, k=2),
    SaeSettings("topk", 48, k=2, input_scale="token", centre_input=False),
    SaeSettings("relu", 48, penalty=0.3),
    SaeSettings("jumprelu", 48, penalty=5e-3),
    SaeSettings("sparsemax", 48, penalty=0.02),
]


def planted(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that are sums of about one and a half of 32 directions, and the directions."""
    g = torch.Generator().manual_seed(seed)
    directions = normalize(torch.randn(PLANTED, WIDTH, generator=g), dim=1)
    on = torch.rand(TOKENS, PLANTED, generator=g) < 0.05
    on[torch.arange(TOKENS), torch.randint(PLANTED, (TOKENS,), generator=g)] = True
    return (on * (1 + torch.rand(TOKENS, PLANTED, generator=g))) @ directions, directions


def chunks_of(x: torch.Tensor, size: int = 1500) -> ActivationChunks:
    parts = x.split(size)
    return ActivationChunks(tuple(map(len, parts)), lambda i: parts[i])


def largest_difference(one: SparseAutoencoder, other: SparseAutoencoder) -> float:
    return max(float((value - other.tensors()[name]).abs().max()) for name, value in one.tensors().items())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.activation}-{kind.input_scale}")
def test_recovers_planted_directions_and_few_latents_fire(kind: SaeSettings) -> None:
    x, directions = planted()
    (own,) = train_autoencoders(ActivationChunks.of_tensor(x), [kind], SaeBudget(steps=300, batch=192))
    cosines = normalize(own.decoder, dim=1) @ directions.T
    assert cosines.amax(0).mean() > 0.9
    latents = own.encode(x)
    assert (latents > 0).sum(1).float().mean() < 14
    unexplained = (own.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert unexplained < (0.8 if kind.activation == "relu" else 0.35)  # an L1 penalty shrinks the latents
    if kind.unit_decoder and kind.activation != "sparsemax":
        torch.testing.assert_close(own.decoder.norm(dim=1), torch.ones(48))


def test_one_pass_gives_each_seed_and_size_its_own_training() -> None:
    chunks, budget = chunks_of(planted()[0]), SaeBudget(steps=30, batch=200)
    members = [replace(KINDS[0], latents=latents, seed=seed) for latents in (40, 48) for seed in (0, 1)]
    together = train_autoencoders(chunks, [*members, KINDS[2]], budget)
    for member, own in zip([*members, KINDS[2]], together, strict=True):
        assert (own.latents, own.activation) == (member.latents, member.activation)
        (alone,) = train_autoencoders(chunks, [member], budget)
        assert largest_difference(own, alone) < 1e-4
    assert largest_difference(together[0], together[1]) > 0.1


def test_killed_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ontogeny.sae.training._SAVED_EVERY", 20)
    chunks, budget, state = chunks_of(planted()[0]), SaeBudget(steps=50, batch=200), tmp_path / "state.safetensors"
    members = [KINDS[3], replace(KINDS[0], seed=4)]

    def kill(done: int, _: int) -> None:
        if done == 45:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_autoencoders(chunks, members, budget, state=state, on_step=kill)
    steps: list[int] = []
    resumed = train_autoencoders(chunks, members, budget, state=state, on_step=lambda done, _: steps.append(done))
    assert steps == list(range(41, 51))
    assert not state.exists()
    for own, whole in zip(resumed, train_autoencoders(chunks, members, budget), strict=True):
        assert largest_difference(own, whole) == 0


def test_batches_depend_on_the_step_and_take_each_token_once_an_epoch() -> None:
    chunks = chunks_of(torch.arange(600.0)[:, None], size=200)
    stream = chunks.batches(50, seed=3)
    batches = [next(stream) for _ in range(30)]
    for epoch in (batches[:12], batches[12:24]):
        assert sorted(torch.cat(epoch).flatten().tolist()) == list(range(600))
    later = chunks.batches(50, seed=3, first=17)
    assert all(torch.equal(next(later), batch) for batch in batches[17:])


@pytest.mark.parametrize(
    ("x", "member", "message"),
    [
        (torch.randn(99, 4), SaeSettings(latents=64), "`latents` must be at most 24 for 99 tokens"),
        (torch.full((900, 4), 2.0), SaeSettings(latents=64), "activations must differ"),
        (torch.full((900, 4), torch.nan), SaeSettings(latents=64), "activations must be finite"),
        (torch.randn(900, 4), SaeSettings("relu", 64, learning_rate=1e30), "not finite at step"),
    ],
)
def test_rejects_what_cannot_train(x: torch.Tensor, member: SaeSettings, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        train_autoencoders(ActivationChunks.of_tensor(x), [member], SaeBudget(steps=60, batch=64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "gelu"}, "activation"),
        ({"latents": 1}, "`latents`"),
        ({"k": 0}, "`k` must be from 1"),
        ({"k": 300}, "`k` must be from 1"),
        ({"penalty": float("nan")}, "`penalty`"),
        ({"learning_rate": 0.0}, "`learning_rate`"),
        ({"input_scale": "max"}, "input scale"),
    ],
)
def test_rejects_settings(settings: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SaeSettings(**settings)
