"""Emergence, loss, phases and the order test: exact properties."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.statistics import order_test
from ontogeny.statistics.change_points import familywise_phases, fit_bend, fit_phases
from ontogeny.statistics.emergence import correct_events, emergence_event, loss_event, step_difference
from ontogeny.statistics.permutation import least_labelling_p, tail_p

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
    gap = step_difference(readable, used)
    assert gap.value == pytest.approx(-3)
    assert (gap.low, gap.high) == pytest.approx((-4, -2))
    same = step_difference(readable, readable)
    assert same.low <= -1
    assert same.high >= 1
    never = emergence_event(STEPS, RISE * 0 + 0.5, resampled(RISE * 0 + 0.5))
    assert math.isnan(step_difference(readable, never).value)
    assert "second event is censored" in step_difference(readable, never).reason
    with pytest.raises(BadInput, match="same resamples"):
        step_difference(readable, emergence_event(STEPS, RISE, resampled(RISE)[:200]))


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


def test_tail_p_is_the_share_where_permutations_reach_and_the_skewed_tail_beyond() -> None:
    g = torch.Generator().manual_seed(0)
    null = torch.randn(1000, generator=g, dtype=torch.float64)
    assert tail_p(1.0, null, least=0.0) == (1 + int((null >= 1).sum())) / 1001
    assert tail_p(5.0, null, least=0.0) == pytest.approx(2.9e-7, rel=2)
    assert tail_p(5.0, null, least=1e-4) == 1e-4
    assert tail_p(3.6, null, least=0.0) <= 1 / 1001
    # Of a chi-square with 4 degrees of freedom the truth is 5.0e-5; a normal tail would say 6e-13.
    skewed = torch.randn(4, 1000, generator=g, dtype=torch.float64).square().sum(0)
    assert 1e-5 < tail_p(25.0, skewed, least=0.0) < 2.5e-4
    assert math.isnan(tail_p(math.nan, null, least=0.0))


def test_least_labelling_p_counts_what_the_permutations_can_draw() -> None:
    twins, pure = torch.tensor([0, 1] * 5) == 0, torch.arange(10) // 2
    assert least_labelling_p(twins, pure) == pytest.approx(2.0**-5)
    blocks = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1]) == 0
    assert least_labelling_p(blocks, pure) == pytest.approx(1 / math.comb(5, 2))


def test_corrected_events_are_those_of_holm() -> None:
    g = torch.Generator().manual_seed(0)
    events = [emergence_event(STEPS, RISE, resampled(RISE, seed=i), end_p=p) for i, p in enumerate((0.001, 0.02, 0.03))]
    assert [event.p for event in events] == [0.001, 0.02, 0.03]
    alone = correct_events(events)
    assert [event.corrected_p for event in alone] == pytest.approx([0.003, 0.04, 0.04])
    assert all(not math.isnan(event.step) for event in alone)
    assert {event.looks for event in alone} == {3}
    crowded = correct_events(events, others=torch.rand(27, generator=g).tolist())
    assert [math.isnan(event.step) for event in crowded] == [False, True, True]
    assert "does not hold among 30 looks" in crowded[1].reason


def test_rise_within_resampling_is_no_emergence() -> None:
    """The last score is far above its floor at every checkpoint, and its rise is smaller than resampling explains."""
    points = curve(0.62, 0.63, 0.62, 0.64, 0.63, 0.65, 0.66, 0.67, 0.68, 0.69, 0.7, 0.71)
    noise = torch.randn(300, 12, generator=torch.Generator().manual_seed(0))
    event = emergence_event(STEPS, points, points + 0.05 * noise, form="threshold", threshold=0.66, floor=0.5)
    assert "not significantly above the lowest" in event.reason
    assert not math.isnan(emergence_event(STEPS, points, points + 0.001 * noise, form="threshold", threshold=0.66).step)


def test_phases_of_many_curves_are_corrected_and_kernels_must_agree() -> None:
    x = (STEPS.double() + 1).log2()
    tent = torch.where(x < 6, 0.1 * x, 0.6 - 0.05 * (x - 6)) + 1e-3 * torch.sin(40 * x)
    rise = x + 0.1 * torch.sin(40 * x)
    fits = {name: fit_bend(STEPS, y) for name, y in (("tent", tent), ("rise", rise))}
    ((one, other),) = familywise_phases([[fits["tent"], fits["tent"]]])
    assert one.verdict == other.verdict == "fitting then compression"
    assert one.step == fit_phases(STEPS, tent).step
    ((one, other),) = familywise_phases([[fits["tent"], fits["rise"]]])
    assert one.verdict == other.verdict == "none"
    assert "the kernels disagree" in one.reason
    g = torch.Generator().manual_seed(0)
    noise = [[fit_bend(STEPS, torch.randn(12, generator=g))] for _ in range(20)]
    decided = familywise_phases([[fits["tent"]], *noise], families=2)
    assert decided[0][0].verdict == "fitting then compression"
    assert decided[0][0].p <= 0.05
    assert all(phases.verdict == "none" for (phases,) in decided[1:])
    assert "corrected for 21 sites and 2 stages" in decided[1][0].reason
    short = fit_bend(STEPS[:5], x[:5])
    assert familywise_phases([[short]])[0][0].reason == short.phases.reason


def test_curves_of_many_checkpoints_are_tested_at_few_bends_and_drawn_at_all() -> None:
    steps = torch.logspace(0, 15, 300, base=2.0).round().unique()
    x = (steps.double() + 1).log2()
    noise = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.where(x < 9, 0.1 * x, 1.8 - 0.1 * x) + 0.02 * noise
    fit = fit_bend(steps, y)
    assert fit.explained is not None
    assert float(fit.explained[0]) > 0.95 > float(fit.explained[1:].max())
    assert fit.phases.verdict == "fitting then compression"
    assert fit.phases.low <= 2**9 - 1 <= fit.phases.high
    assert abs(math.log2(fit.phases.step + 1) - 9) < 0.1
