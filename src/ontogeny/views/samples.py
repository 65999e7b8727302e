"""Samples side by side: text of the unsteered model, the steered model, and a random edit of equal norm.

The bar is the surprise of the text under the unsteered model, in nats per token: a high value means that steering damaged the language.
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
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR

title = "Samples side by side"
place = 15
needs = frozenset({"concept", "metric", "value", "coords"})
where = metric_condition("sample_surprise")
PROMPTS, CONCEPTS, LETTERS = 2, 6, 110


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
    return alt.vconcat(*panels, spacing=24)


def _panel(name: str, prompt: str, rows: pd.DataFrame, longest: float) -> Any:
    rows = rows[rows["prompt"].eq(prompt)].drop_duplicates("arm")
    rows = rows.assign(
        arm=[_condition(arm) for arm in rows["arm"]], text=[_cut(text) or "(nothing)" for text in rows["text"]]
    )
    arms = list(rows["arm"])
    y = alt.Y("arm:N", sort=arms, title="arm", axis=alt.Axis(labelLimit=200))
    base = alt.Chart(inline_rows(rows, "arm", "text", "value")).encode(y=y)
    x = alt.X(
        "value:Q", title="surprise (nats per token)", axis=alt.Axis(tickCount=2), scale=alt.Scale(domain=[0, longest])
    )
    height = 20 * len(arms)
    bars = base.mark_bar(color=CATEGORY_COLOURS[0], height=9).encode(x=x).properties(width=110, height=height)
    words = alt.Chart(inline_rows(rows, "arm", "text")).mark_text(
        align="left", color=INK_COLOUR, fontSize=11, limit=CHART_WIDTH - 260
    )
    words = words.encode(y=alt.Y("arm:N", sort=arms, axis=None), x=alt.value(0), text="text:N")
    words = words.properties(width=CHART_WIDTH - 260, height=height)
    return alt.hconcat(bars, words, spacing=12).properties(title=panel_title(f"{name}: {_cut(prompt)}"))


def _condition(arm: str) -> str:
    control = "control of "
    method = arm.removeprefix(control)
    return (control if arm.startswith(control) else "") + METHOD_LABELS.get(method, method)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LETTERS else flat[: LETTERS - 1] + "…"
