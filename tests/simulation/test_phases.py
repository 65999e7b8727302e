"""A planted change point is found and covered; noise has none."""

import math
from collections import Counter

import torch

from ontogeny.statistics.change_points import TrainingPhases, fit_phases

STEPS = torch.tensor(sorted({0, *[round(2 ** (17 * i / 20)) for i in range(21)]}))
X = (STEPS.double() + 1).log2()
TENT = torch.where(X < 9, 0.1 * (X - 9), -0.06 * (X - 9))


def runs(curve: torch.Tensor, noise: float, *, sets: int, shuffle: bool = False) -> list[TrainingPhases]:
    g = torch.Generator().manual_seed(1)
    found = []
    for seed in range(sets):
        y = curve + noise * torch.randn(len(curve), generator=g, dtype=torch.float64)
        found.append(fit_phases(STEPS, y[torch.randperm(len(y), generator=g)] if shuffle else y, seed=seed))
    return found


def verdicts(found: list[TrainingPhases]) -> dict[str, float]:
    counts = Counter(one.verdict for one in found)
    return {verdict: counts[verdict] / len(found) for verdict in counts}


def test_interval_covers_planted_peak():
    for noise in (0.03, 0.08):
        found = runs(TENT, noise, sets=300)
        turned = [one for one in found if one.verdict == "fitting then compression"]
        assert len(turned) > 0.95 * len(found)
        cover = sum(math.log2(one.low + 1) <= 9 <= math.log2(one.high + 1) for one in turned) / len(turned)
        assert 0.93 <= cover <= 0.975
        middle = sorted(math.log2(one.step + 1) for one in turned)[len(turned) // 2]
        assert abs(middle - 9) < 0.15


def test_noise_and_shuffled_checkpoints_have_no_phase():
    assert verdicts(runs(0 * X, 1.0, sets=300))["none"] >= 0.95
    assert verdicts(runs(TENT, 0.03, sets=300, shuffle=True))["none"] >= 0.95


def test_single_phase_is_not_reported_as_two():
    assert verdicts(runs(0.1 * X, 0.1, sets=80)).get("fitting", 0) > 0.95
    assert verdicts(runs(torch.sigmoid(2 * (X - 6)), 0.05, sets=80)).get("fitting", 0) > 0.95
    assert verdicts(runs(-0.1 * X, 0.1, sets=80)).get("compression", 0) > 0.95
    assert verdicts(runs(-TENT, 0.05, sets=60)) == {"none": 1.0}
