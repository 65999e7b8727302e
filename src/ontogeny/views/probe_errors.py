"""Errors: the texts that the probe gets most wrong at the last checkpoint, the worst first.

The bar is the held-out score at the concept's best site; blue speaks for the positive class and orange for the other (of more than two
classes, the margin of the own class below the best other one; of numbers, the prediction minus the target). Right of it: the label, the
share of all checkpoints at which the example is wrong, and the beginning of its text. A text that is wrong at nearly all checkpoints
may have a wrong label.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, records_by_concept, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title
from ontogeny.views._layout import Chart, hconcat, vconcat
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR

title = "Errors of the probe"
place = 27
needs = frozenset({"concept", "step", "metric", "value", "coords"})
METRICS = ("example_wrong", "example_error", "example_errors", "example_score")
select = rows_with_metrics(*METRICS)
where = f"{metric_condition(*METRICS[:3])} or (metric = 'example_score' and {{last:example_score}})"
_EXAMPLES, _CONCEPTS, _LETTERS = 8, 8, 100
_ROW_HEIGHT = 20


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    known = table[table["value"].notna()]
    rows = known.assign(**{key: coord_column(known, key) for key in ("example", "label", "text", "rank")})
    panels = [_panel(s.name, s.rows, line) for s in list(records_by_concept(rows))[:_CONCEPTS]]
    panels = [panel for panel in panels if panel is not None]
    if not panels:
        return blank_chart(title, missing_rows_reason(table, "example_wrong or example_error"))
    return vconcat(*panels, spacing=22)


def _panel(name: str, rows: pd.DataFrame, line: Timeline) -> Any:
    scores = line.place(rows[rows["metric"].eq("example_score")])
    listed = rows[rows["metric"].isin(["example_wrong", "example_error"])].drop_duplicates("example")
    count = rows[rows["metric"].eq("example_errors")]
    if scores.empty or listed.empty:
        return None
    last = scores[scores["age"].eq(scores["age"].max())].drop_duplicates("example")
    at = checkpoint_label(str(last["stage"].iloc[0]), float(last["step"].iloc[0]))
    wrong = listed[listed["rank"].ne("")]
    wrong = wrong.assign(rank=wrong["rank"].astype(int)).nsmallest(_EXAMPLES, "rank")
    where_read = f"{name} at {listed['site'].iloc[0]}, {at}"
    if wrong.empty:
        said = pd.DataFrame({"said": ["No example is wrong."]})
        none = Chart(inline_rows(said)).mark_text(align="left", color=INK_COLOUR, fontSize=11)
        none = none.encode(x=alt.value(0), text="said:N")
        return none.properties(width=CHART_WIDTH - 200, height=_ROW_HEIGHT, title=panel_title(where_read))
    wrong = wrong.merge(last[["example", "value"]].rename(columns={"value": "score"}), on="example")
    numbers = wrong["metric"].eq("example_error").any()
    wrong = wrong.assign(
        shown=[
            f"{label} · {'mean error ' + format(value, '.3g') if numbers else f'wrong at {value:.0%}'} · {_cut(text)}"
            for label, value, text in zip(wrong["label"], wrong["value"], wrong["text"], strict=True)
        ]
    )
    order = list(wrong["example"])
    height = _ROW_HEIGHT * len(order)
    y = alt.Y("example:N", sort=order, title="example (number in the file)")
    axis = "prediction minus target (units of the target)" if numbers else "score (nats)"
    base = Chart(inline_rows(wrong, "example", "label", "score", "shown"))
    bars = base.mark_bar(height=10).encode(
        x=alt.X("score:Q", title=axis, axis=alt.Axis(tickCount=3)),
        y=y,
        color=alt.condition("datum.score > 0", alt.value(CATEGORY_COLOURS[0]), alt.value(CATEGORY_COLOURS[1])),
        tooltip=["example:N", "label:N", alt.Tooltip("score:Q", format="+.3g"), alt.Tooltip("shown:N", title="text")],
    )
    words = base.mark_text(align="left", color=INK_COLOUR, fontSize=11, limit=CHART_WIDTH - 290)
    words = words.encode(y=alt.Y("example:N", sort=order, axis=None), x=alt.value(0), text="shown:N")
    words = words.properties(width=CHART_WIDTH - 290, height=height)
    chart = hconcat(bars.properties(width=130, height=height), words, spacing=12)
    more = [
        f"{value:.0f} of {n:.0f} test examples {'is' if value == 1 else 'are'} wrong"
        for value, n in zip(count["value"], count["n"], strict=True)
    ]
    shown = "the largest errors" if numbers else "the worst" if len(order) == 1 else f"the {len(order)} worst"
    return chart.properties(title=panel_title(where_read, *more[:1], shown))


def _cut(text: str) -> str:
    if not text:
        return "(the run keeps no texts)"
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"
