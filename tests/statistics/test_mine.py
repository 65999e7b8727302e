"""MINE against the closed form of Gaussian variables, and without dependence."""

import math

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.statistics.mine import mine


def _pair(correlation: float, *, n: int = 1200, d: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    a, noise = (torch.randn(n, d, generator=generator) for _ in range(2))
    return a, correlation * a + math.sqrt(1 - correlation**2) * noise


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_bound_is_close_to_the_information_of_gaussian_variables(correlation: float) -> None:
    a, b = _pair(correlation)
    information = -math.log(1 - correlation**2)  # two dimensions
    assert float(mine(a, b)) == pytest.approx(information, abs=0.15)


def test_information_about_a_binary_label_is_at_most_its_entropy() -> None:
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(400) % 4 < 2
    t = torch.randn(400, 6, generator=generator)
    t[:, 0] += 6.0 * y
    values = mine(
        torch.stack([t, t.flip(0)[torch.randperm(400, generator=generator)]]),
        y.float()[None, :, None].expand(2, -1, -1),
    )
    assert 0.5 < float(values[0]) < math.log(2) + 0.05
    assert float(values[1]) < 0.1


def test_cells_do_not_depend_on_each_other() -> None:
    a, b = _pair(0.8, n=64)
    c, d = _pair(0.2, n=64)
    together = mine(torch.stack([a, c]), torch.stack([b, d]), steps=20)
    assert torch.allclose(together, torch.stack([mine(a, b, steps=20), mine(c, d, steps=20)]), atol=1e-5)


def test_held_out_examples_are_not_trained_on() -> None:
    a, b = _pair(0.0, n=40, d=6)
    held_out = torch.arange(40) >= 20
    assert float(mine(a, b, held_out=held_out, steps=300)) < 0.3  # a network of this size fits 20 examples at once


def test_rejects_bad_input() -> None:
    a, b = _pair(0.5, n=20)
    with pytest.raises(BadInput, match="at least 8 examples"):
        mine(a[:7], b[:7])
    with pytest.raises(BadInput, match="held_out"):
        mine(a, b, held_out=torch.ones(20, dtype=torch.bool))
