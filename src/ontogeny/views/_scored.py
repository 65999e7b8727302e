"""What pictures of emergence are drawn from: the score of each concept at its best site, and when it rose."""

import pandas as pd

from ontogeny.findings import SCORES, Finding, findings
from ontogeny.findings.table import tidy
from ontogeny.findings.timeline import Timeline, timeline
from ontogeny.views._pieces import reason


def rows_of_scores(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*SCORES, "best_site", "cv_score", "emergence_step"])]


def scored(records: pd.DataFrame) -> tuple[list[Finding], Timeline, str]:
    """The findings on the timeline of all records, and why there is nothing to draw of them ('' where there is)."""
    table, line = tidy(rows_of_scores(records)), timeline(records)
    found = findings(table, line)
    if any(f.curve["value"].notna().any() for f in found):
        return found, line, ""
    return found, line, reason(table[table["metric"].isin(SCORES)], "a score (auroc, r2, accuracy)")
