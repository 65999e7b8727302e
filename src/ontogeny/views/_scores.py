"""What pictures of emergence are drawn from: the score of each concept at its best site, and when it rose."""

import math
from collections.abc import Iterable

import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS, Finding, collect_findings
from ontogeny.findings.sentences import SCORE_LABELS
from ontogeny.findings.table import tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._chart_parts import missing_rows_reason

LOWEST_DRAWN_SCORE = -0.2
"""An R² far below zero is as bad as one just below: it must not squeeze the rest of a picture."""


def score_axis_title(metrics: Iterable[str]) -> str:
    """What an axis of scores is called, with the range of each: an R² has no lower end."""
    ranges = {"r2": "≤ 1"}
    return " or ".join(f"{SCORE_LABELS[m]} ({ranges.get(m, '0–1')})" for m in dict.fromkeys(metrics))


def score_axis_minimum(values: Iterable[float]) -> float:
    """Where an axis of scores begins, in tenths."""
    known = [value for value in values if not math.isnan(value)]
    return max(LOWEST_DRAWN_SCORE, min([0.4, *(math.floor(10 * value) / 10 for value in known)]))


def score_rows(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*SCORE_METRICS, "best_site", "cv_score", "emergence_step"])]


def findings_on_timeline(records: pd.DataFrame) -> tuple[list[Finding], Timeline, str]:
    """The findings on the timeline of all records, and why there is nothing to draw of them ('' where there is)."""
    table, line = tidy_records(score_rows(records)), make_timeline(records)
    found = collect_findings(table, line)
    if any(f.curve["value"].notna().any() for f in found):
        return found, line, ""
    return found, line, missing_rows_reason(table[table["metric"].isin(SCORE_METRICS)], "a score (auroc, r2, accuracy)")
