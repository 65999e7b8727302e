"""Alerts as functions of a series: warm-up, two in a row, cooldown, hysteresis, severity, interval."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

import ontogeny as on
from ontogeny.alerts.detection import AlertSettings, ConceptPoint, Measured, WatchedSeries, find_alerts
from ontogeny.errors import BadInput

HALF = 0.05


def points(values: Sequence[float], *, half: float = HALF, stage: str = "pretrain", **more: Any) -> list[ConceptPoint]:
    return [
        ConceptPoint(stage, 2**i, f"checkpoint-{2**i}", Measured(v, v - half, v + half), "resid.1", **more)
        for i, v in enumerate(values)
    ]


def series(values: Sequence[float], *, floor: float = 0.5, half: float = HALF, **more: Any) -> WatchedSeries:
    return WatchedSeries("truth", points(values, half=half), floor, **more)


def kinds(of: WatchedSeries, settings: AlertSettings | None = None) -> list[tuple[str, int | None]]:
    return [(alert.kind, alert.step) for alert in find_alerts(of, settings or AlertSettings())]


def test_a_concept_emerges_at_the_second_checkpoint_in_a_row() -> None:
    assert kinds(series([0.5] * 5 + [0.9] * 4)) == [("emerges", 64)]
    assert kinds(series([0.5] * 5 + [0.9] + [0.5] * 4)) == []
    (alert,) = find_alerts(series([0.5] * 5 + [0.9] * 4), AlertSettings())
    assert alert.severity == "info"
    assert (alert.measured.low, alert.measured.high) == pytest.approx((0.85, 0.95))
    assert "AUROC 0.90 (0.85–0.95)" in alert.line


def test_what_is_readable_from_the_start_does_not_emerge() -> None:
    assert kinds(series([0.9] * 10)) == []
    assert kinds(series([0.62, 0.63, 0.62, 0.65, 0.66, 0.67, 0.66])) == []


def test_a_wide_interval_raises_no_alert() -> None:
    assert kinds(series([0.5] * 5 + [0.9] * 4, half=0.4)) == []
    assert kinds(WatchedSeries("truth", [ConceptPoint("a", i, f"{i}", Measured(0.9)) for i in range(9)], 0.5)) == []


def test_a_probe_collapses_once_and_its_new_level_is_the_reference() -> None:
    of = series([0.9] * 6 + [0.7] * 10)
    assert kinds(of) == [("collapses", 128)]
    (alert,) = find_alerts(of, AlertSettings())
    assert alert.severity == "warning"
    assert alert.reference == pytest.approx(0.9)
    (alert,) = find_alerts(series([0.9] * 6 + [0.5] * 6), AlertSettings())
    assert alert.severity == "critical"
    assert "at its floor" in alert.message


def test_a_concept_may_emerge_again_after_it_fell() -> None:
    found = kinds(series([0.5] * 3 + [0.9] * 7 + [0.5] * 7 + [0.9] * 4))
    assert [kind for kind, _ in found] == ["emerges", "collapses", "emerges"]


def test_cooldown_separates_alerts_of_one_kind() -> None:
    falling = [0.95] * 4 + [0.8] * 6 + [0.65] * 4
    assert len(kinds(series(falling), AlertSettings(cooldown=0))) == 2
    assert len(kinds(series(falling), AlertSettings(cooldown=20))) == 1


def test_a_direction_turns_only_while_the_concept_is_readable() -> None:
    def angle(first: int, second: int) -> Measured:
        degrees = 80.0 if (first < 5) != (second < 5) else 5.0
        return Measured(degrees, degrees - 10, degrees + 10)

    assert kinds(series([0.9] * 10, angle=angle)) == [("turns", 64)]
    assert kinds(series([0.55] * 10, angle=angle)) == []
    assert kinds(series([0.9] * 10, angle=lambda a, b: Measured(80, 30, 130))) == []


def test_confidence_drifts_and_must_come_back_before_it_drifts_again() -> None:
    def drifting(changes: Sequence[float]) -> WatchedSeries:
        listed = [
            ConceptPoint(
                "pretrain", i, f"{i}", Measured(0.9, 0.85, 0.95), confidence_change=Measured(c, c - 0.02, c + 0.02)
            )
            for i, c in enumerate(changes)
        ]
        return WatchedSeries("truth", listed, 0.5)

    assert kinds(drifting([0.0] * 4 + [-0.3] * 12)) == [("drifts", 5)]
    twice = [0.0] * 4 + [0.3] * 4 + [0.0] * 4 + [0.3] * 4
    assert kinds(drifting(twice)) == [("drifts", 5), ("drifts", 13)]
    assert "less confident by 0.30" in find_alerts(drifting([0.0] * 4 + [-0.3] * 4), AlertSettings())[0].message


def test_points_of_the_stage_before_set_the_reference_and_raise_nothing() -> None:
    listed = [*points([0.9], stage="base"), *points([0.55] * 6, stage="sft")]
    listed = [ConceptPoint(p.stage, p.step, f"{p.stage}{p.step}", p.score, p.site) for p in listed]
    inside = WatchedSeries("truth", listed, 0.5, inherited=1)
    assert all(alert.stage == "sft" for alert in find_alerts(inside, AlertSettings()))


def test_settings_are_checked() -> None:
    for settings in ({"warm_up": 0}, {"confirm": 0}, {"cooldown": -1}, {"angle": 0.0}, {"change": math.inf}):
        with pytest.raises(BadInput, match=f"`{next(iter(settings))}`"):
            on.AlertSettings(**settings)  # type: ignore[arg-type]
