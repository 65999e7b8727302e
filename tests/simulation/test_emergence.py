"""Intervals cover a planted emergence; noise, constants and shuffled checkpoints have none.

Scores of 150 held-out examples in 75 groups, their noise correlated by .8 from checkpoint to checkpoint; the gap of the classes
follows a logistic curve over log2(step + 1). Truth is the crossing of the noise-free AUROC.
"""

import math
from collections.abc import Callable

import torch

from ontogeny.statistics.bootstrap import auroc_samples, group_weights
from ontogeny.statistics.emergence import EmergenceEvent, emergence_event, loss_event

RESAMPLES = 200
SHARED = 0.8
Gap = Callable[[torch.Tensor], torch.Tensor]


def grid(count: int) -> torch.Tensor:
    return torch.tensor(sorted({0, *[round(2 ** (17 * i / (count - 2))) for i in range(count - 1)]}))


def gap_of(auroc: float) -> float:
    return math.sqrt(2) * float(torch.special.ndtri(torch.tensor(auroc, dtype=torch.float64)))


def rising(final: float, middle: float, slope: float = 1.5) -> Gap:
    return lambda x: gap_of(final) * torch.sigmoid(slope * (x - middle))


def lost(peak: float, rise: float, fall: float) -> Gap:
    return lambda x: gap_of(peak) * torch.sigmoid(1.5 * (x - rise)) * (1 - 0.9 * torch.sigmoid(1.5 * (x - fall)))


def true_auroc(gap: Gap, x: torch.Tensor) -> torch.Tensor:
    return torch.special.ndtr(gap(x) / math.sqrt(2))


def events(
    gap: Gap, steps: torch.Tensor, *, sets: int, find=emergence_event, form: str = "half", shuffle: bool = False
) -> list[EmergenceEvent]:
    g = torch.Generator().manual_seed(0)
    groups, y = torch.arange(75).repeat_interleave(2), torch.arange(150) % 2 == 0
    x = (steps.double() + 1).log2()
    found = []
    for seed in range(sets):
        common, own = torch.randn(1, 150, generator=g), torch.randn(len(steps), 150, generator=g)
        scores = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * own + gap(x).float()[:, None] * y
        if shuffle:
            scores = scores[torch.randperm(len(steps), generator=g)]
        weights = group_weights(groups, samples=RESAMPLES, seed=seed)
        points = auroc_samples(scores, y, torch.ones(1, 150))[0]
        found.append(find(steps, points, auroc_samples(scores, y, weights), form=form, seed=seed))
    return found


def reported(found: list[EmergenceEvent]) -> float:
    return sum(not math.isnan(event.step) for event in found) / len(found)


def covered(found: list[EmergenceEvent], truth: float) -> float:
    known = [event for event in found if not math.isnan(event.step)]
    return sum(event.low <= truth and not event.high < truth for event in known) / len(known)


def crossing(gap: Gap, steps: torch.Tensor, level: float) -> float:
    """The last crossing of the level on a fine grid."""
    x = torch.linspace(0, math.log2(int(steps[-1]) + 1), 40001, dtype=torch.float64)
    above = true_auroc(gap, x) >= level
    return 2 ** float(x[1:][above[1:] != above[:-1]].max()) - 1


def test_interval_covers_planted_half_step():
    for gap, steps in ((rising(0.8, 9), grid(15)), (rising(0.85, 9), grid(30)), (rising(0.85, 9, 0.7), grid(24))):
        final = float(true_auroc(gap, torch.tensor([17.0], dtype=torch.float64)))
        found = events(gap, steps, sets=200)
        assert reported(found) > 0.95
        assert covered(found, crossing(gap, steps, (0.5 + final) / 2)) >= 0.93


def test_interval_covers_reported_step_of_weak_concept():
    gap, steps = rising(0.65, 9), grid(15)
    found = events(gap, steps, sets=250)
    assert 0.7 < reported(found) < 1
    assert covered(found, crossing(gap, steps, 0.575)) >= 0.93


def test_interval_covers_planted_threshold_step():
    gap, steps = rising(0.9, 9), grid(20)
    found = events(gap, steps, sets=250, form="threshold")
    assert reported(found) > 0.95
    assert covered(found, crossing(gap, steps, 0.75)) >= 0.93


def test_intervals_are_narrow():
    widths = [math.log2(e.high + 1) - math.log2(e.low + 1) for e in events(rising(0.85, 9), grid(30), sets=60)]
    assert sorted(widths)[30] < 1.5


def test_noise_and_constants_have_no_emergence():
    for form in ("half", "threshold"):
        assert reported(events(rising(0.5, 9), grid(15), sets=200, form=form)) <= 0.05
        assert reported(events(lambda x: gap_of(0.85) + 0 * x, grid(15), sets=100, form=form)) <= 0.05


def test_shuffled_checkpoints_have_no_emergence():
    """Gradual, early and late rises; 10 and 20 checkpoints. An early jump onto a plateau is the hard one."""
    curves = ((rising(0.85, 9), 20), (rising(0.85, 3, 4), 20), (rising(0.85, 14, 4), 20), (rising(0.9, 3, 4), 10))
    rates = []
    for gap, count in curves:
        assert reported(events(gap, grid(count), sets=30)) > 0.95
        rates.append(reported(events(gap, grid(count), sets=200, shuffle=True)))
    assert sum(rates) / len(rates) <= 0.05
    assert max(rates) <= 0.07


def test_interval_covers_planted_loss_and_noise_has_none():
    gap, steps = lost(0.85, 5, 11), grid(20)
    x = torch.linspace(0, 17, 2001, dtype=torch.float64)
    curve = true_auroc(gap, x)
    found = events(gap, steps, sets=200, find=loss_event)
    assert reported(found) > 0.9
    assert covered(found, crossing(gap, steps, float(curve.max() + curve[-1]) / 2)) >= 0.93
    assert reported(events(gap, steps, sets=200, find=loss_event, shuffle=True)) <= 0.05
    assert reported(events(rising(0.85, 6), steps, sets=200, find=loss_event)) <= 0.05
    assert reported(events(rising(0.5, 9), steps, sets=200, find=loss_event)) <= 0.05
