"""The denoised cosine of two noisy directions of known angle is unbiased, and its interval covers it."""

import math

import pytest
import torch
from torch import Tensor

from ontogeny.metrics.similarity import cosine
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.denoised_cosine import denoised_cosine

D, GROUPS, EACH, RUNS = 64, 60, 4, 60


def _stages(seed: int, angle: float, gap: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same texts in two stages: half of their noise is common, and texts of a group share some."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    first, other = noise(D), noise(D)
    first = first / first.norm()
    other = other - other @ first * first
    second = angle * first + math.sqrt(1 - angle**2) * other / other.norm()
    y, groups = torch.arange(GROUPS * EACH) % 2 == 0, torch.arange(GROUPS * EACH) // EACH
    common = noise(len(y), D) * math.sqrt(0.5) + 0.5 * noise(GROUPS, D)[groups]
    side = torch.where(y, 0.5, -0.5)[:, None] * gap
    seen = [side * direction + common + math.sqrt(0.5) * noise(len(y), D) for direction in (first, second)]
    return seen[0], seen[1], y, groups


def _learned(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    true, false = weights * y, weights * ~y
    return true @ x / true.sum(1, keepdim=True) - false @ x / false.sum(1, keepdim=True)


@pytest.mark.parametrize(("angle", "gap"), [(0.0, 2.8), (0.5, 2.8), (0.9, 2.8), (0.9, 1.4), (1.0, 1.4)])
def test_denoised_cosine_is_unbiased_and_covered(angle: float, gap: float) -> None:
    values, plain, held = [], [], 0
    for seed in range(RUNS):
        a, b, y, groups = _stages(seed, angle, gap)
        weights = torch.cat([torch.ones(1, len(y)), group_weights(groups, samples=200, seed=seed)])
        (first, *_), (second, *_) = drawn = _learned(a, y, weights), _learned(b, y, weights)
        value, (low, high) = denoised_cosine(first, second, drawn[0][1:], drawn[1][1:], groups=GROUPS)
        values.append(value)
        plain.append(float(cosine(first, second)))
        held += low <= angle <= max(high, value)
    mean = torch.tensor(values)
    assert abs(float(mean.mean()) - angle) < 0.03
    assert held / RUNS > 0.9
    if angle == 1.0:  # the control: the plain cosine is far off
        assert torch.tensor(plain).mean() < 0.9


def test_direction_shorter_than_its_noise_gives_nan() -> None:
    lost = 0
    for seed in range(20):
        a, b, y, groups = _stages(seed, 0.9, 0.0)
        weights = torch.cat([torch.ones(1, len(y)), group_weights(groups, samples=200, seed=seed)])
        drawn = _learned(a, y, weights), _learned(b, y, weights)
        value, _ = denoised_cosine(drawn[0][0], drawn[1][0], drawn[0][1:], drawn[1][1:], groups=GROUPS)
        lost += math.isnan(value)
    assert lost > 5


def test_denoised_cosine_with_itself_is_one() -> None:
    drawn = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 0.1 + torch.ones(8)
    value, ends = denoised_cosine(torch.ones(8), torch.ones(8), drawn, drawn, groups=10)
    assert value == pytest.approx(1)
    assert ends == pytest.approx((1, 1))
