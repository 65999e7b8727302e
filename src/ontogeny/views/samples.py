"""Samples side by side: text of the unsteered model, the steered model, and a random edit of equal norm.

The bar is the surprise of the text under the unsteered model, in nats per token: a high value means that steering damaged the language.
Grey is the unsteered model, blue a steered one, amber its control.
An edit whose text resembles that of its control has no specific effect.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.steering_verdicts import METHOD_LABELS
from ontogeny.findings.table import coord_column, records_by_concept, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title
from ontogeny.views._layout import Chart, hconcat, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Samples side by side"
place = 15
needs = frozenset({"concept", "metric", "value", "coords"})
where = metric_condition("sample_surprise")
PROMPTS, CONCEPTS, LETTERS = 2, 6, 110
_COLOURS = {"unsteered": MUTED_COLOUR, "steered": CATEGORY_COLOURS[0], "control": CATEGORY_COLOURS[4]}
_KEY = tuple(LegendEntry(kind, "cell", colour) for kind, colour in _COLOURS.items())
_CONTROL = "control of "


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].eq("sample_surprise")]


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    samples = table if table["value"].notna().any() else table.head(0)
    longest = max(float(samples["value"].max()), 1.0) if len(samples) else 1.0
    samples = samples.assign(**{key: coord_column(samples, key) for key in ("arm", "prompt", "text")})
    panels: list[Any] = []
    for subject in list(records_by_concept(samples))[:CONCEPTS]:
        rows = line.last(subject.rows) if subject.rows["step"].notna().any() else subject.rows
        panels += [_panel(subject.name, prompt, rows, longest) for prompt in list(rows["prompt"].unique())[:PROMPTS]]
    if not panels:
        return blank_chart(title, missing_rows_reason(table, "sample_surprise (ontogeny evaluate makes them)"))
    return with_legend(vconcat(*panels, spacing=24), *_KEY)


def _panel(name: str, prompt: str, rows: pd.DataFrame, longest: float) -> Any:
    rows = rows[rows["prompt"].eq(prompt)].drop_duplicates("arm")
    rows = rows.assign(
        kind=[_kind(arm) for arm in rows["arm"]],
        arm=[_condition(arm) for arm in rows["arm"]],
        text=[_cut(text) or "(nothing)" for text in rows["text"]],
    )
    arms = list(rows["arm"])
    y = alt.Y("arm:N", sort=arms, title="arm", axis=alt.Axis(labelLimit=200))
    base = Chart(inline_rows(rows, "arm", "kind", "text", "value")).encode(y=y)
    x = alt.X(
        "value:Q", title="surprise (nats per token)", axis=alt.Axis(tickCount=2), scale=alt.Scale(domain=[0, longest])
    )
    height = 20 * len(arms)
    scale = alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))
    bars = (
        base.mark_bar(height=9)
        .encode(x=x, color=alt.Color("kind:N", scale=scale, legend=None))
        .properties(width=110, height=height)
    )
    words = Chart(inline_rows(rows, "arm", "text")).mark_text(
        align="left", color=INK_COLOUR, fontSize=11, limit=CHART_WIDTH - 260
    )
    words = words.encode(y=alt.Y("arm:N", sort=arms, axis=None), x=alt.value(0), text="text:N")
    words = words.properties(width=CHART_WIDTH - 260, height=height)
    return hconcat(bars, words, spacing=12).properties(title=panel_title(f"{name}: {_cut(prompt)}", _said(rows)))


def _said(rows: pd.DataFrame) -> str:
    """How surprising the steered texts are beside the unsteered one."""
    values = rows.drop_duplicates("kind").set_index("kind")["value"].dropna()
    if not {"unsteered", "steered"} <= set(values.index):
        return ""
    return f"steered {values['steered']:.2f} nats per token, unsteered {values['unsteered']:.2f}"


def _kind(arm: str) -> str:
    return "control" if arm.startswith(_CONTROL) else "unsteered" if arm == "unsteered" else "steered"


def _condition(arm: str) -> str:
    method = arm.removeprefix(_CONTROL)
    return (_CONTROL if arm.startswith(_CONTROL) else "") + METHOD_LABELS.get(method, method)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LETTERS else flat[: LETTERS - 1] + "…"
