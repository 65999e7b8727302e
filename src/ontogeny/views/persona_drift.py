"""Persona drift: how far a chat model keeps to its system prompt after each round of a dialogue with itself, under each mitigation.

Top: adherence of answers to a question after each round, with 95 % intervals over dialogues (of many curves plain only), one panel a
checkpoint; dashed: the same words in one turn, which has the length without the turns. Middle: recall of the instruction, adoption of the
partner's, with the null of instructions that neither party has, and attention to the system prompt, mean over heads. Bottom: adherence
after the last round against the margin on plain questions, for each mitigation: up and to the right is better.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.persona_drift import pooled_rows
from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import evenly_spread, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    known_intervals,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    resolve_scales,
)
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Persona drift"
place = 25
together = True
needs = frozenset({"stage", "step", "concept", "method", "metric", "control", "value", "low", "high", "coords"})

CURVES = ("adherence", "instruction_recall", "adoption")
METRICS = (*CURVES, "adherence_change", "attention_mass", "capability_margin")
MOST, _MOST_BANDS = 4, 3
"""Maximum number of checkpoints, and of mitigations that all have their interval."""
_LINES = (
    ("instruction_recall", "", "recall of the instruction"),
    ("adoption", "", "adoption of the partner's"),
    ("adoption", "stranger", "null: neither party's"),
    ("attention_mass", "", "attention to the system prompt"),
)
_KEY = (
    LegendEntry("95 % interval", "band", INK_COLOUR, opacity=0.2),
    LegendEntry("the same words in one turn", "line", MUTED_COLOUR, (4, 3)),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table = select(records)
    line = make_timeline(records)
    rows = pooled_rows(table)
    rows = line.place(rows[rows["value"].notna() & rows["site"].eq("")]).assign(name=lambda part: part["method"])
    known = rows[rows["metric"].eq("adherence") & rows["control"].ne("no_system")]
    if known.empty:
        return blank_chart(title, missing_rows_reason(tidy_records(table), "adherence (ontogeny drift makes them)"))
    moments = known.drop_duplicates("age").sort_values("age")
    ages = evenly_spread(moments["age"].tolist(), MOST)
    names = sorted(known["name"].unique(), key=lambda name: (name != "plain", name))
    width = CHART_WIDTH / len(ages) - 70
    plain = rows[rows["name"].eq("plain")]
    blocks = [
        [_adherence(rows[rows["age"].eq(age)], names, width) for age in ages],
        [_compared(plain[plain["age"].eq(age)], width) for age in ages],
        [_frontier(rows[rows["age"].eq(age)], names, width) for age in ages],
    ]
    shown = [hconcat(*panels, spacing=30) for own in blocks if (panels := [one for one in own if one is not None])]
    return with_legend(resolve_scales(vconcat(*shown, spacing=26), color="independent"), *_KEY)


def _place(rows: pd.DataFrame) -> str:
    return checkpoint_label(rows["stage"].iloc[0], rows["moment"].iloc[0])


def _curve(rows: pd.DataFrame, colour: Any, y: alt.Y, bands: int) -> list[Any]:
    """Lines with intervals as bands, of the first name alone where there are many."""
    axis = alt.Axis(values=sorted(rows["rounds"].unique().tolist()), format="d", labelOverlap=True)
    x = alt.X("rounds:Q", title="rounds of the dialogue (count)", axis=axis)
    columns = ("name", "rounds", "value", "low", "high", "n")
    banded = rows if rows["name"].nunique() <= bands else rows[rows["name"].eq(rows["name"].iloc[0])]
    base = Chart(inline_rows(banded, *columns))
    band = base.mark_area(opacity=0.16) if banded["rounds"].nunique() > 1 else base.mark_rule(strokeWidth=1.5)
    band = band.encode(x=x, color=colour, y=alt.Y("low:Q", title=y["title"]), y2="high:Q")
    tooltip = ["name:N", *number_tooltips("rounds", "n", digits="d"), *number_tooltips("value", "low", "high")]
    lines = Chart(inline_rows(rows, *columns)).mark_line(strokeWidth=1.8, point={"size": 22})
    return [*known_intervals(band, banded), lines.encode(x=x, y=y, color=colour, tooltip=tooltip)]


def _adherence(rows: pd.DataFrame, names: list[str], width: float) -> Any:
    own = rows[rows["metric"].eq("adherence") & rows["name"].isin(names)]
    own = own.assign(order=own["name"].map(names.index)).sort_values(["order", "rounds"])
    curves, once = own[own["control"].eq("")], own[own["control"].eq("one_turn")]
    if curves.empty:
        return None
    y = alt.Y("value:Q", title="adherence (0–1)", scale=alt.Scale(domain=[0, 1]))
    layers = _curve(curves, colour_by_name(names, title="mitigation"), y, _MOST_BANDS)
    if len(once):
        dashed = Chart(inline_rows(once, "rounds", "value")).mark_line(color=MUTED_COLOUR, strokeDash=[4, 3])
        layers.append(dashed.encode(x="rounds:Q", y=y))
    change = rows[rows["metric"].eq("adherence_change") & rows["control"].eq("") & rows["name"].eq("plain")]
    said = ""
    if len(change):
        row = change.iloc[0]
        ends = "" if pd.isna(row["low"]) else f" [{format_score(row['low'])}, {format_score(row['high'])}]"
        said = f"change of plain {format_score(row['value'])}{ends}"
    return overlay(*layers).properties(width=width, height=190, title=panel_title(_place(own), said))


def _compared(rows: pd.DataFrame, width: float) -> Any:
    parts = [
        rows[rows["metric"].eq(metric) & rows["control"].eq(control)].assign(name=words)
        for metric, control, words in _LINES
    ]
    curves = pd.concat(parts).sort_values("rounds")
    if curves.empty:
        return None
    names = [words for *_, words in _LINES if words in set(curves["name"])]
    y = alt.Y("value:Q", title="share (0–1)", scale=alt.Scale(domain=[0, 1]))
    layers = _curve(curves, colour_by_name(names, title="plain model"), y, len(_LINES))
    return overlay(*layers).properties(width=width, height=150, title=panel_title("Without mitigation"))


def _frontier(rows: pd.DataFrame, names: list[str], width: float) -> Any:
    adherence = rows[rows["metric"].eq("adherence") & rows["control"].eq("")]
    last = adherence[adherence["rounds"].eq(adherence["rounds"].max())]
    cost = rows[rows["metric"].eq("capability_margin")][["name", "value", "low", "high"]]
    both = last[["name", "value", "low", "high"]].merge(cost, on="name", suffixes=("", "_margin"))
    if len(both) < 2:
        return None
    columns = list(both.columns)
    base = Chart(inline_rows(both, *columns)).encode(color=colour_by_name(names, title="mitigation"))
    x = alt.X("value_margin:Q", title="margin on plain questions (nats per token)", scale=alt.Scale(zero=False))
    y = alt.Y("value:Q", title="adherence at the end (0–1)", scale=alt.Scale(domain=[0, 1]))
    points = base.mark_circle(size=90, opacity=1).encode(x=x, y=y, tooltip=["name:N", *number_tooltips(*columns[1:])])
    upright = base.mark_rule().encode(x=x, y=alt.Y("low:Q", title=y["title"]), y2="high:Q")
    across = base.mark_rule().encode(y=y, x=alt.X("low_margin:Q", title=x["title"]), x2="high_margin:Q")
    bars = [*known_intervals(upright, both), *([across] if both["low_margin"].notna().any() else [])]
    heading = panel_title("Adherence against capability", "bars: 95 % intervals")
    return overlay(*bars, points).properties(width=width, height=190, title=heading)
