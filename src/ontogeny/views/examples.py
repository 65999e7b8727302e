"""Examples: held-out score of single texts at every checkpoint, at the concept's best site. Each column is one example, grouped by class.

Blue cells speak for the positive class and orange ones for the other; of more than two classes, blue is right and orange is wrong; of
numbers, blue is a prediction above the target. Within a class the examples are sorted by their score at the last checkpoint. A column
that keeps the wrong colour is a text the probe never reads correctly; one that turns late was learned late.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import coord_column, evenly_spread, mean_over_seeds, records_by_concept, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._theme import CHART_WIDTH, DIVERGING_SCHEME

title = "Examples over training"
place = 26
needs = frozenset({"concept", "step", "metric", "value", "coords"})
select = rows_with_metrics("example_score")
where = "metric = 'example_score' and {thin:24}"
_CHECKPOINTS, _EXAMPLES, _CONCEPTS = 24, 120, 8
_ROW_HEIGHT = 13


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    known = table[table["value"].notna()]
    rows = known.assign(**{key: coord_column(known, key) for key in ("example", "label")})
    panels = [_panel(s.name, s.rows, line) for s in list(records_by_concept(rows))[:_CONCEPTS]]
    if not panels:
        return blank_chart(title, missing_rows_reason(table, "example_score"))
    return vconcat(*panels, spacing=22).resolve_scale(color="independent")


def _panel(name: str, rows: pd.DataFrame, line: Timeline) -> Any:
    rows = line.place(mean_over_seeds(rows, "example"))
    ages = evenly_spread(sorted(rows["age"].unique()), _CHECKPOINTS)
    rows = rows[rows["age"].isin(ages)].sort_values("age", kind="stable")
    rows = rows.assign(
        checkpoint=[checkpoint_label(stage, step) for stage, step in zip(rows["stage"], rows["step"], strict=True)]
    )
    last = rows[rows["age"].eq(rows["age"].max())].sort_values(["label", "value"], kind="stable")
    order = evenly_spread(list(dict.fromkeys(last["example"])), _EXAMPLES)
    checkpoints = list(dict.fromkeys(rows["checkpoint"]))
    rows = rows[rows["example"].isin(order)]
    # Few scores are far out; the colours serve the others.
    largest = float(rows["value"].abs().quantile(0.95)) or 1.0
    classes = list(dict.fromkeys(last["label"]))
    few = len(classes) <= 8
    scale = alt.Scale(scheme=DIVERGING_SCHEME, reverse=True, domain=[-largest, largest], domainMid=0, clamp=True)
    base = Chart(inline_rows(rows, "example", "label", "checkpoint", "value")).encode(
        x=alt.X(
            "example:N", sort=order, title="example (number in the file)", axis=alt.Axis(labels=False, ticks=False)
        ),
        y=alt.Y("checkpoint:N", sort=checkpoints, title="training step"),
        color=alt.Color("value:Q", scale=scale, legend=alt.Legend(title="score", gradientLength=90)),
        tooltip=["example:N", "label:N", "checkpoint:N", *number_tooltips("value", digits="+.3g")],
    )
    counts = last["label"].value_counts()
    said = ", ".join(f"{label} ({counts[label]})" for label in classes) if few else ""
    heading = panel_title(
        f"{name} at {rows['site'].iloc[0]}, {rows['method'].iloc[0]}", f"from left to right: {said}" if said else ""
    )
    layers = [base.mark_rect()]
    if few and len(classes) > 1:
        # The first example of each further class, at whose left edge a line separates the classes.
        firsts = [str(last[last["label"].eq(label)]["example"].iloc[0]) for label in classes[1:]]
        edges = Chart(inline_rows(pd.DataFrame({"example": [e for e in firsts if e in order]})))
        layers.append(
            edges.mark_rule(color="#1b1f24", strokeWidth=1.2).encode(
                x=alt.X("example:N", sort=order, bandPosition=0, title="example (number in the file)")
            )
        )
    height = max(_ROW_HEIGHT * len(checkpoints), 40)
    return overlay(*layers).properties(width=CHART_WIDTH - 160, height=height, title=heading)
