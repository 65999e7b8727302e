"""Score histogram: how the AUROCs of all sites are spread at the last checkpoint, one panel for each concept.

A long tail to the right means that a few sites read the concept and most do not.
"""

from typing import Any

import altair as alt
import pandas as pd

title = "Score histogram"
needs = frozenset({"concept", "step", "metric", "value"})


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].eq("auroc")]


def draw(records: pd.DataFrame) -> Any:
    rows = select(records)
    known = rows[rows["value"].notna() & rows["step"].notna() & rows["control"].isna()]
    if known.empty:
        notes = [note for note in rows["note"].dropna().unique() if note]
        reason = (
            f"auroc could not be measured: {'; '.join(notes[:3])}." if notes else "No rows with auroc in this table."
        )
        blank = alt.Chart(alt.InlineData(values=[{"reason": reason}]), width=400, height=60)
        return blank.mark_text().encode(text="reason:N").properties(usermeta={"empty": reason})
    last = known[known["step"].eq(known.groupby("concept")["step"].transform("max"))]
    panels = []
    for concept, own in last.groupby("concept", sort=False):
        counts = pd.cut(own["value"], [i / 20 for i in range(21)], labels=False, include_lowest=True).value_counts()
        bars = [{"low": i / 20, "high": (i + 1) / 20, "count": int(counts.get(i, 0))} for i in range(20)]
        chart = alt.Chart(alt.InlineData(values=tuple(bars)), width=180, height=120).mark_bar(color="#0072b2")
        panels.append(
            chart.encode(
                x=alt.X("low:Q", title="AUROC (0–1)", scale=alt.Scale(domain=[0, 1])),
                x2="high:Q",
                y=alt.Y("count:Q", title="sites (count)"),
            ).properties(title=str(concept))
        )
    return alt.concat(*panels, columns=3)
