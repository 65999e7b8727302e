"""Data of emergence charts: the score of each concept at its best site, and its events on the time axis."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS, Finding, StepEstimate
from ontogeny.findings.sentences import SCORE_LABELS, format_event
from ontogeny.findings.shared_findings import curve_findings
from ontogeny.findings.table import tidy_records
from ontogeny.findings.timeline import Timeline
from ontogeny.views._chart_parts import missing_rows_reason

LOWEST_DRAWN_SCORE = -0.2
"""Lower scores (a very negative R²) are drawn at this value, so that they do not compress the rest."""


def score_axis_title(metrics: Iterable[str]) -> str:
    """Title of a score axis, with the range of each metric."""
    ranges = {"r2": "≤ 1"}
    return " or ".join(f"{SCORE_LABELS[m]} ({ranges.get(m, '0–1')})" for m in dict.fromkeys(metrics))


def score_axis_minimum(values: Iterable[float]) -> float:
    """Start of a score axis, in tenths."""
    known = [value for value in values if not math.isnan(value)]
    return max(LOWEST_DRAWN_SCORE, min([0.4, *(math.floor(10 * value) / 10 for value in known)]))


def score_rows(records: pd.DataFrame) -> pd.DataFrame:
    """Rows of scores, best sites and emergence steps."""
    return records[records["metric"].isin([*SCORE_METRICS, "best_site", "cv_score", "emergence_step"])]


def findings_on_timeline(records: pd.DataFrame) -> tuple[list[Finding], Timeline, str]:
    """The findings, the timeline of all records, and the reason if no finding can be drawn (else '')."""
    findings, line = curve_findings(records)
    if any(f.curve["value"].notna().any() for f in findings):
        return findings, line, ""
    scores = tidy_records(records[records["metric"].isin(SCORE_METRICS)])
    return findings, line, missing_rows_reason(scores, "a score (auroc, r2, accuracy)")


def thin_curve(curve: pd.DataFrame, most: int = 240) -> pd.DataFrame:
    """At most about `most` points of one curve (columns age, value), with both ends and the extremes of each pixel."""
    if len(curve) <= most:
        return curve
    ages = curve["age"]
    part = ((ages - ages.min()) / ((ages.max() - ages.min()) or 1.0) * (most // 2)).astype(int)
    value = curve["value"].fillna(curve["value"].mean()).fillna(0.0)
    rows = {curve.index[0], curve.index[-1], *value.groupby(part).idxmin(), *value.groupby(part).idxmax()}
    return curve.loc[[row for row in curve.index if row in rows]]


def place_event(event: StepEstimate | None, line: Timeline) -> dict[str, Any] | None:
    """A known event on the time axis: `age`, the ends `low` and `high` of its interval, and its text; None if unknown."""
    if event is None or not event.known:
        return None
    age, low, high = (line.age(event.stage, step) for step in (event.step, event.low, event.high))
    ends = {"low": age if math.isnan(low) else low, "high": age if math.isnan(high) else high}
    return {"age": age, "label": format_event(event), **ends}
