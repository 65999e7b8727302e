"""Matching of latents: planted features are found, noise has no match, and births follow the matches."""

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.sae import latent_births, match_latents

TEXTS, LENGTH, LATENTS, WIDTH = 120, 20, 64, 16
OWNER = torch.arange(TEXTS).repeat_interleave(LENGTH)


def random_latents(seed: int) -> torch.Tensor:
    """Latents that fire at random: each at another rate, in bursts inside a text."""
    g = torch.Generator().manual_seed(seed)
    rate = 0.01 + 0.15 * torch.rand(LATENTS, generator=g)
    wakes = torch.rand(TEXTS, 1, LATENTS, generator=g) < rate.sqrt()
    fires = wakes & (torch.rand(TEXTS, LENGTH, LATENTS, generator=g) < rate.sqrt())
    return (fires * torch.rand(TEXTS, LENGTH, LATENTS, generator=g)).flatten(0, 1)


def directions(seed: int) -> torch.Tensor:
    return torch.randn(LATENTS, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_finds_planted_features_and_their_places() -> None:
    one, other, mine, theirs = random_latents(0), random_latents(1), directions(0), directions(1)
    for i in range(6):
        other[:, 50 + i] = 0.8 * one[:, i] + 0.2 * other[:, 50 + i]
        theirs[50 + i] = mine[i] + 0.3 * theirs[50 + i]
    match = match_latents(one, other, OWNER, (mine, theirs))
    assert match.matched.nonzero().flatten().tolist() == list(range(6))
    assert match.partner[:6].tolist() == list(range(50, 56))
    assert (match.correlation[:6] > 3 * match.null_correlation).all()
    assert match.share == pytest.approx(6 / int(match.compared.sum()))
    theirs[50] = -mine[0]
    assert not match_latents(one, other, OWNER, (mine, theirs)).matched[0]
    assert match_latents(one, other, OWNER).matched[0]


def test_finds_nothing_in_noise() -> None:
    """At a level of 5 % a set of noise has a match in one run of twenty."""
    runs = [
        match_latents(random_latents(2 * s), random_latents(2 * s + 1), OWNER, permutations=39, seed=s)
        for s in range(12)
    ]
    assert sum(bool(run.matched.any()) for run in runs) <= 3
    assert sum(int(run.matched.sum()) for run in runs) <= 4


def test_rare_latents_are_not_compared() -> None:
    one = random_latents(0)
    one[:, 3] = 0
    one[:5, 3] = 1.0
    match = match_latents(one, one.clone(), OWNER)
    assert not match.compared[3]
    assert not match.matched[3]
    assert torch.isnan(match.p[3])
    assert match.share == 1


def test_a_latent_is_born_where_its_unbroken_matches_begin() -> None:
    final = random_latents(0)
    stages = []
    for known in (0, 2, 4):
        early = random_latents(10 + known)
        early[:, :known] = final[:, :known]
        stages.append(match_latents(final, early, OWNER))
    born, share = latent_births(stages)
    assert born[:5].tolist() == [1, 1, 2, 2, 3]
    assert share.tolist() == sorted(share.tolist())


@pytest.mark.parametrize(
    ("tokens", "owner", "message"),
    [(60, OWNER, "the same tokens"), (60, OWNER[:60], "at least 4 texts")],
)
def test_rejects_other_tokens_and_few_texts(tokens: int, owner: torch.Tensor, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        match_latents(random_latents(0)[:tokens], random_latents(1)[:tokens], owner)
