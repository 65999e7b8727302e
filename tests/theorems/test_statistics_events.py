"""Emergence, loss, phases and the order test: exact properties."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.statistics import order_test
from ontogeny.statistics.change_points import fit_phases
from ontogeny.statistics.emergence import emergence_event, loss_event, paired_difference

small = settings(max_examples=25, deadline=None, derandomize=True)
STEPS = torch.tensor([0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047])
LOW, HIGH = 0.5, 0.9


def curve(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def resampled(points: torch.Tensor, *, spread: float = 0.01, seed: int = 0) -> torch.Tensor:
    return points + spread * torch.randn(300, 1, generator=torch.Generator().manual_seed(seed))


RISE = curve(*[LOW] * 6, *[HIGH] * 6)


def test_step_of_a_jump_is_midway_in_log_steps():
    event = emergence_event(STEPS, RISE, resampled(RISE))
    assert event.position == pytest.approx(5.5)
    assert event.between == (31, 63)
    assert event.low <= 31
    assert event.high >= 63
    assert event.reason == ""


def test_half_form_depends_on_floor_and_threshold_form_does_not():
    points = torch.linspace(0.5, 0.94, 12)
    at = {
        (form, floor): emergence_event(STEPS, points, resampled(points), form=form, floor=floor).position
        for form in ("half", "threshold")
        for floor in (0.4, 0.5, 0.6)
    }
    assert at["half", 0.4] < at["half", 0.5] < at["half", 0.6]
    assert at["threshold", 0.4] == at["threshold", 0.5] == at["threshold", 0.6] == pytest.approx(11 * 0.25 / 0.44)
    # Later checkpoints, still better: `half` moves, the threshold stays.
    more, further = torch.cat([STEPS, torch.tensor([4095, 8191])]), torch.cat([points, curve(0.97, 0.99)])
    assert emergence_event(more, further, resampled(further), form="threshold").position == pytest.approx(
        at["threshold", 0.5]
    )
    assert emergence_event(more, further, resampled(further)).position > at["half", 0.5]


def test_measured_floor_is_paired():
    noisy = resampled(RISE, spread=0.2)
    assert math.isnan(emergence_event(STEPS, RISE, noisy, floor=0.7).step)
    paired = noisy[:, 0] + 0.2
    assert emergence_event(STEPS, RISE, noisy, floor=paired).position == pytest.approx(5.75, abs=0.01)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (curve(*[0.5] * 12), "not significantly above its floor"),
        (curve(*[0.9] * 12), "already so at the first checkpoint"),
        (RISE.flip(0), "not significantly above its floor"),
        (curve(0.5, 0.9, 0.5, 0.9, 0.5, 0.9, 0.5, 0.9, 0.5, 0.9, 0.5, 0.9), "order of the checkpoints could be chance"),
        (curve(0.5, *[0.9] * 11), "before (1)"),
        (curve(*[torch.nan] * 9, 0.5, 0.9, 0.9), "3 checkpoints have a score"),
    ],
)
def test_event_without_evidence_is_censored(points, reason):
    event = emergence_event(STEPS, points, resampled(points))
    assert math.isnan(event.step)
    assert math.isnan(event.low)
    assert reason in event.reason


def test_single_early_checkpoint_is_evidence_among_25():
    steps, points = torch.arange(25) * 1000, curve(0.5, *[0.9] * 24)
    assert emergence_event(steps, points, resampled(points)).between == (0, 1000)


def test_score_that_ends_below_threshold_is_censored():
    points = curve(*[0.5] * 6, *[0.7] * 6)
    assert "below the threshold" in emergence_event(STEPS, points, resampled(points), form="threshold").reason


def test_upper_end_after_last_checkpoint_is_nan_with_reason():
    points = curve(*[0.5] * 6, *[0.76] * 6)
    event = emergence_event(STEPS, points, resampled(points, spread=0.05), form="threshold")
    assert not math.isnan(event.step)
    assert math.isnan(event.high)
    assert "after the last checkpoint" in event.reason


def test_unscored_checkpoints_and_resamples_are_left_out():
    points = RISE.clone()
    points[3] = torch.nan
    samples = resampled(RISE)
    samples[:, 3] = torch.nan
    samples[7] = torch.nan
    event = emergence_event(STEPS, points, samples)
    assert event.position == pytest.approx(5.5)
    assert event.samples.isnan().nonzero().tolist() == [[7]]
    assert "resamples could be scored" in emergence_event(STEPS, RISE, torch.full((300, 12), torch.nan)).reason


def test_steps_must_increase():
    with pytest.raises(BadInput, match="must increase"):
        emergence_event(STEPS.flip(0), RISE, resampled(RISE))
    with pytest.raises(BadInput, match="must increase"):
        fit_phases(STEPS.flip(0), RISE)


def test_loss_mirrors_emergence():
    down = curve(*[LOW] * 2, *[HIGH] * 5, *[LOW + 0.1] * 5)
    lost = loss_event(STEPS, down, resampled(down))
    assert lost.between == (63, 127)
    assert lost.position == pytest.approx(6.5)
    assert loss_event(STEPS, down, resampled(down), form="threshold").between == (63, 127)
    assert "not significantly below the peak" in loss_event(STEPS, RISE, resampled(RISE)).reason
    assert "never significantly above" in loss_event(STEPS, down - 0.5, resampled(down - 0.5)).reason
    barely = curve(*[LOW] * 2, *[HIGH] * 5, *[HIGH - 0.1] * 5)
    assert "does not fall through" in loss_event(STEPS, barely, resampled(barely), form="threshold").reason


def test_paired_difference_is_in_doublings_and_includes_checkpoints():
    later = curve(*[LOW] * 9, *[HIGH] * 3)
    readable, used = emergence_event(STEPS, RISE, resampled(RISE)), emergence_event(STEPS, later, resampled(later))
    gap = paired_difference(readable, used)
    assert gap.value == pytest.approx(-3)
    assert (gap.low, gap.high) == pytest.approx((-4, -2))
    same = paired_difference(readable, readable)
    assert same.low <= -1
    assert same.high >= 1
    never = emergence_event(STEPS, RISE * 0 + 0.5, resampled(RISE * 0 + 0.5))
    assert math.isnan(paired_difference(readable, never).value)
    assert "second event is censored" in paired_difference(readable, never).reason
    with pytest.raises(BadInput, match="same resamples"):
        paired_difference(readable, emergence_event(STEPS, RISE, resampled(RISE)[:200]))


@small
@given(st.lists(st.integers(0, 3), min_size=4, max_size=6))
def test_order_test_equals_enumeration_of_orders(values):
    points = torch.tensor(values, dtype=torch.float64)

    def best(v: tuple[float, ...]) -> float:
        n = len(v)
        gaps = [(k, sum(v[k:]) / (n - k) - sum(v[:k]) / k) for k in range(1, n)]
        return max(max(gap, 0) ** 2 * k * (n - k) / n for k, gap in gaps)

    every = [best(v) for v in itertools.permutations(values)]
    assert order_test.rise_p_value(points) == pytest.approx(
        sum(b >= best(tuple(values)) - 1e-9 for b in every) / len(every)
    )


def test_order_test_ignores_the_plateau():
    wiggle = 0.02 * torch.randn(18, generator=torch.Generator().manual_seed(0))
    points = torch.cat([curve(0.5, 0.5, 0.5), 0.8 + wiggle])
    assert order_test.rise_p_value(points) < 0.01
    assert order_test.rise_p_value(points.flip(0)) > 0.5
    assert order_test.fall_p_value(torch.cat([curve(0.5, 0.5, 0.5), 0.8 + wiggle.sort().values])) == 1
    assert order_test.smallest_p_value(2, 7) == pytest.approx(1 / 21)


def test_change_point_is_at_the_bend():
    x = (STEPS.double() + 1).log2()
    tent = torch.where(x < 6, 0.1 * x, 0.6 - 0.05 * (x - 6)) + 1e-3 * torch.sin(40 * x)
    found = fit_phases(STEPS, tent)
    assert found.verdict == "fitting then compression"
    assert math.log2(found.step + 1) == pytest.approx(6, abs=0.1)
    assert found.low <= found.step <= found.high
    assert (found.slope_before, found.slope_after) == pytest.approx((0.1, -0.05), abs=0.003)
    assert fit_phases(STEPS, -tent).verdict == "none"
    assert "falls first" in fit_phases(STEPS, -tent).reason
    assert fit_phases(STEPS, x + 0.1 * torch.sin(40 * x)).verdict == "fitting"
    assert fit_phases(STEPS, -x + 0.1 * torch.sin(40 * x)).verdict == "compression"
    assert "constant" in fit_phases(STEPS, x * 0).reason
    assert "phases need 8" in fit_phases(STEPS[:5], x[:5]).reason
    # Unchanged by the unit of the curve; what could not be scored is left out.
    assert fit_phases(STEPS, 7 * tent - 3).step == pytest.approx(found.step)
    tent[2] = torch.nan
    assert fit_phases(STEPS, tent).verdict == "fitting then compression"
