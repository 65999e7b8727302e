"""Algebra of directions, and errors for incompatible ones."""

import math

import pytest
import torch

from ontogeny.direction import Direction, average_directions
from ontogeny.errors import BadInput
from ontogeny.sites import Site


def direction(seed=0, d=16, site="resid.1", **more):
    vector = torch.randn(d, generator=torch.Generator().manual_seed(seed))
    return Direction(vector, Site.parse(site), f"concept{seed}@step1/mass_mean", **more)


def test_algebra_of_directions():
    a, b = direction(0), direction(1)
    torch.testing.assert_close((a + 2 * b - b).vector, a.vector + b.vector)
    assert float((a - a).vector.norm()) == 0
    assert a.unit().vector.norm().item() == pytest.approx(1)
    assert a.cosine(-a) == pytest.approx(-1)
    assert (a.along(b) + a.without(b)).cosine(a) == pytest.approx(1)
    assert a.without(b).cosine(b) == pytest.approx(0, abs=1e-6)
    assert a.along(b).cosine(b) * a.cosine(b) > 0
    assert "concept0" in (a + b).origin
    assert "concept1" in (a + b).origin


def test_scaled_uses_facts_of_the_fit():
    a = direction(scale="gap", facts={"gap": 3.0, "std": 0.5}, sign="true")
    assert a.scaled("std").vector.norm().item() == pytest.approx(0.5)
    assert a.scaled("gap").vector.norm().item() == pytest.approx(3.0)
    assert a.scaled("std").scale == "std"
    assert a.unit().scaled("gap").cosine(a) == pytest.approx(1)
    assert (-a).sign == "not true"
    with pytest.raises(BadInput, match="must have the fact std"):
        direction().scaled("std")
    with pytest.raises(BadInput, match="did you mean unit"):
        a.scaled("units")


def test_sign_follows_the_factor():
    a = direction(sign="true")
    assert [(factor * a).sign for factor in (2.0, -0.5, 0.0)] == ["true", "not true", ""]
    opposite = -a
    assert (-opposite).sign == "true"
    assert (-direction()).sign == ""


def test_cosine_of_tiny_vectors_and_of_two_precisions():
    a, tiny = direction(0), 1e-30 * direction(0)
    assert a.cosine(tiny) == pytest.approx(1)
    assert tiny.unit().vector.norm().item() == pytest.approx(1)
    half = Direction(a.vector.half(), a.site, "half")
    assert half.cosine(a) == pytest.approx(1, abs=1e-3)
    assert math.isnan((0 * a).cosine(a))


def test_average_aligns_signs():
    a = direction(0)
    noisy = [a.unit() + 0.05 * direction(seed).unit() for seed in range(1, 9)]
    flipped = [-one if i % 2 else one for i, one in enumerate(noisy)]
    mean = average_directions(flipped)
    assert mean.cosine(a) > 0.99
    assert mean.facts["agreement"] > 0.99
    assert average_directions([direction(seed, d=400) for seed in range(20)]).facts["agreement"] < 0.4


def test_random_direction_has_equal_norm():
    a = direction(3, d=400)
    assert a.random(0).vector.norm().item() == pytest.approx(a.vector.norm().item(), rel=1e-5)
    assert abs(a.random(0).cosine(a)) < 0.2
    assert torch.equal(a.random(0).vector, a.random(0).vector)
    assert abs(a.random(0).cosine(a.random(1))) < 0.2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: direction(d=4) + direction(d=5), "4 and 5 dimensions"),
        (lambda: direction() - direction(site="resid.2"), "resid.1 and resid.2"),
        (lambda: Direction(torch.tensor([math.nan]), Site("resid", 1), "x"), "must be a vector of finite numbers"),
        (lambda: Direction(torch.ones(2, 2), Site("resid", 1), "x"), "must be a vector of finite numbers"),
        (lambda: (direction() * 0.0).unit(), "must not be zero"),
        (lambda: direction(scale="length"), "no scale called"),
        (lambda: average_directions([]), "at least one"),
    ],
)
def test_incompatible_directions_are_one_line_errors(make, words):
    with pytest.raises(BadInput, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_at_moves_a_direction_to_another_site():
    moved = direction().at(Site("resid", 2)) + direction(1, site="resid.2")
    assert moved.site == Site("resid", 2)
