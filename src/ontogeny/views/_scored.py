"""What pictures of emergence are drawn from: the score of each concept at its best site, and when it rose."""

import math
from collections.abc import Iterable

import pandas as pd

from ontogeny.findings import SCORES, Finding, findings
from ontogeny.findings.sentences import SCORE_NAMES
from ontogeny.findings.table import tidy
from ontogeny.findings.timeline import Timeline, timeline
from ontogeny.views._pieces import reason

LOWEST = -0.2
"""An R² far below zero is as bad as one just below: it must not squeeze the rest of a picture."""


def score_title(metrics: Iterable[str]) -> str:
    """What an axis of scores is called, with the range of each: an R² has no lower end."""
    ranges = {"r2": "≤ 1"}
    return " or ".join(f"{SCORE_NAMES[m]} ({ranges.get(m, '0–1')})" for m in dict.fromkeys(metrics))


def lowest(values: Iterable[float]) -> float:
    """Where an axis of scores begins, in tenths."""
    known = [value for value in values if not math.isnan(value)]
    return max(LOWEST, min([0.4, *(math.floor(10 * value) / 10 for value in known)]))


def rows_of_scores(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*SCORES, "best_site", "cv_score", "emergence_step"])]


def scored(records: pd.DataFrame) -> tuple[list[Finding], Timeline, str]:
    """The findings on the timeline of all records, and why there is nothing to draw of them ('' where there is)."""
    table, line = tidy(rows_of_scores(records)), timeline(records)
    found = findings(table, line)
    if any(f.curve["value"].notna().any() for f in found):
        return found, line, ""
    return found, line, reason(table[table["metric"].isin(SCORES)], "a score (auroc, r2, accuracy)")
