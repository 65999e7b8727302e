"""Score of every attention head at the last checkpoint, by layer.

Grey heads are not significant after correction over all cells of the concept (family-wise permutation p > .05). The number is the
score of the best head.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS
from ontogeny.findings.selection import OWN_ROWS, metric_condition
from ontogeny.findings.sentences import SCORE_LABELS, format_score
from ontogeny.findings.table import ConceptRecords, mean_over_seeds, records_by_concept, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    stack_by_metric,
)
from ontogeny.views._theme import INK_COLOUR, MISSING_COLOUR, SEQUENTIAL_SCHEME

title = "Heads at the last checkpoint"
place = 5
needs = frozenset({"step", "concept", "site", "layer", "head", "metric", "value"})

LEVEL = 0.05
where = (
    f"{metric_condition(*SCORE_METRICS, 'p_familywise')} and head is not null and {OWN_ROWS} and {{probe}} and {{last}}"
)


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*SCORE_METRICS, "p_familywise"]) & records["head"].notna()]


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    measured = [(s, cells) for s in records_by_concept(table) if (cells := _cells(s, line))["value"].notna().any()]
    panels = [(str(cells["metric"].iloc[0]), _panel(s.name, cells)) for s, cells in measured]
    return stack_by_metric(panels) if panels else blank_chart(title, missing_rows_reason(table, "a score at a head"))


def _cells(subject: ConceptRecords, line: Timeline) -> pd.DataFrame:
    """The heads at the last checkpoint with their p, for one metric and one probe."""
    scored = line.last(select_rows(subject.rows, *SCORE_METRICS))
    for column, order in (("metric", SCORE_METRICS), ("method", ("logistic", "ridge", "mass_mean"))):
        present = list(scored[column].unique())
        if present:
            scored = scored[scored[column].eq(next((name for name in order if name in present), present[0]))]
    p = line.last(select_rows(subject.rows, "p_familywise"))
    p = p[p["method"].isin(scored["method"])].drop_duplicates("site")[["site", "value"]].rename(columns={"value": "p"})
    return mean_over_seeds(scored, "site").merge(p, on="site", how="left").assign(name=subject.name)


def _panel(name: str, cells: pd.DataFrame) -> Any:
    wide, high = int(cells["head"].max()) + 1, int(cells["layer"].max())
    side = max(7, min(34, 240 / max(wide, high)))
    columns = ("name", "site", "layer", "head", "step", "value", "low", "high", "p")
    base = alt.Chart(inline_rows(cells, *columns)).encode(
        x=alt.X("head:O", title="head (0 first)", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("layer:O", title="layer", sort="descending", axis=alt.Axis(labelOverlap=True)),
        tooltip=["name:N", "site:N", *number_tooltips("value", "low", "high", "p")],
    )
    metric = cells["metric"].iloc[0]
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.0 if metric == "r2" else 0.5, 1.0], clamp=True)
    legend = alt.Legend(title=f"{SCORE_LABELS[metric]} (grey: not significant)", orient="bottom", gradientLength=260)
    significant = f"!isValid(datum.p) || datum.p <= {LEVEL}"
    colour = alt.condition(significant, alt.Color("value:Q", scale=scale, legend=legend), alt.value(MISSING_COLOUR))
    squares = (
        base.transform_filter("isValid(datum.value)").mark_rect(stroke="white", strokeWidth=1).encode(color=colour)
    )
    best = cells.loc[[cells["value"].idxmax()]]
    best = best.assign(label=format_score(float(best["value"].iloc[0])))
    frame = alt.Chart(inline_rows(best, *columns, "label")).encode(x="head:O", y=alt.Y("layer:O", sort="descending"))
    layers = [squares, frame.mark_rect(fill="transparent", stroke=INK_COLOUR, strokeWidth=1.6)]
    if side >= 22:
        dark = float(best["value"].iloc[0]) > 0.75
        layers.append(frame.mark_text(fontSize=10, color="white" if dark else INK_COLOUR).encode(text="label:N"))
    heading = panel_title(name, f"best: {best['site'].iloc[0]} at {best['label'].iloc[0]}")
    return alt.layer(*layers).properties(width=side * wide, height=side * high, title=heading)
