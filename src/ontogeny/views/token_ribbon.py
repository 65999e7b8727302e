"""Token ribbon: a text, once for each checkpoint, each token coloured by the score of that checkpoint's probe.

Blue is the positive class and orange the negative; the scale is the same for all texts of a concept, with zero in the middle. Each token
is read in its left context. The probe was fitted at its own read position, so the scores of other tokens are an extrapolation.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, evenly_spread, records_by_concept, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title
from ontogeny.views._layout import Chart, vconcat
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR

title = "Token ribbon"
place = 14
needs = frozenset({"concept", "step", "metric", "value", "coords"})
select = rows_with_metrics("token_score")
where = metric_condition("token_score")
_CHECKPOINTS, _TEXTS, _CONCEPTS = 14, 4, 6
_LINE_LETTERS, _LINES = 84, 3
"""Longest line of a text in letters, and maximum number of lines; the rest is left out."""
_LETTER_WIDTH, _ROW_HEIGHT = 7.3, 19


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    known = table[table["value"].notna() & table["step"].notna()]
    rows = known.assign(**{key: coord_column(known, key) for key in ("text", "token", "word")})
    panels = [panel for s in list(records_by_concept(rows))[:_CONCEPTS] for panel in _panels(s.name, s.rows, line)]
    if not panels:
        return blank_chart(title, missing_rows_reason(table, "token_score (ontogeny.read_checkpoints makes them)"))
    return vconcat(*panels, spacing=18).resolve_scale(color="independent")


def _panels(name: str, rows: pd.DataFrame, line: Timeline) -> list[Any]:
    rows = line.place(rows)
    ages = evenly_spread(sorted(rows["age"].unique()), _CHECKPOINTS)
    rows = rows[rows["age"].isin(ages)].sort_values("age")
    rows = rows.assign(
        token=rows["token"].astype(int),
        checkpoint=[checkpoint_label(stage, step) for stage, step in zip(rows["stage"], rows["step"], strict=True)],
    )
    largest = float(rows["value"].abs().max()) or 1.0
    panels = []
    for number in list(dict.fromkeys(rows["text"]))[:_TEXTS]:
        own = rows[rows["text"].eq(number)]
        places = _layout(own)
        for index, part in enumerate(_lines(places)):
            cells = own.merge(part, on="token", how="inner")
            if len(cells):
                site = "" if index else f"{name} at {own['site'].iloc[0]}, {own['method'].iloc[0]}"
                panels.append(_panel(cells, list(dict.fromkeys(rows["checkpoint"])), largest, site))
    return panels


def _layout(rows: pd.DataFrame) -> pd.DataFrame:
    """Token, line, and first and last letter of each token in its line."""
    words = rows.drop_duplicates("token").sort_values("token")
    placed, past, number = [], 0, 0
    for token, word in zip(words["token"], words["word"], strict=True):
        letters = max(len(word), 1)
        if past and past + letters > _LINE_LETTERS:
            past, number = 0, number + 1
        placed.append({"token": token, "line": number, "start": past, "end": past + letters, "shown": word})
        past += letters
    return pd.DataFrame(placed)


def _lines(places: pd.DataFrame) -> list[pd.DataFrame]:
    return [places[places["line"].eq(number)] for number in sorted(places["line"].unique())[:_LINES]]


def _panel(cells: pd.DataFrame, checkpoints: list[str], largest: float, heading: str) -> Any:
    cells = cells.assign(middle=(cells["start"] + cells["end"]) / 2, shown=[_visible(word) for word in cells["shown"]])
    y = alt.Y("checkpoint:N", sort=checkpoints, title="training step", scale=alt.Scale(domain=checkpoints))
    past = int(cells["end"].max())
    x = alt.X(
        "start:Q",
        title="letters of the text (count)",
        scale=alt.Scale(domain=[0, past], nice=False),
        axis=alt.Axis(tickCount=4, grid=False),
    )
    color = alt.Color(
        "value:Q",
        scale=alt.Scale(scheme="blueorange", reverse=True, domain=[-largest, largest], domainMid=0),
        legend=alt.Legend(title="score", orient="right", gradientLength=90) if heading else None,
    )
    data = inline_rows(cells, "checkpoint", "start", "end", "middle", "shown", "value")
    base = Chart(data).encode(y=y)
    tooltip = [
        alt.Tooltip("shown:N", title="token"),
        alt.Tooltip("checkpoint:N"),
        alt.Tooltip("value:Q", format="+.3g"),
    ]
    ribbon = base.mark_rect(stroke="white", strokeWidth=0.5).encode(x=x, x2="end:Q", color=color, tooltip=tooltip)
    strong = f"abs(datum.value) > {0.72 * largest:.6g}"
    words = base.mark_text(font="monospace", fontSize=11).encode(
        x=alt.X("middle:Q"), text="shown:N", color=alt.condition(strong, alt.value("white"), alt.value(INK_COLOUR))
    )
    width = min(CHART_WIDTH - 120, max(past * _LETTER_WIDTH, 60))
    chart = (ribbon + words).properties(width=width, height=_ROW_HEIGHT * len(checkpoints))
    return chart.properties(title=panel_title(heading)) if heading else chart


def _visible(word: str) -> str:
    return word.replace("\n", "⏎").replace("\t", "⇥")
