"""Drift of each concept's direction: the cosine of its directions at any two checkpoints.

A dark square from some step on means that the direction has been stable since then; a thin diagonal means that it keeps turning. If
only the cosine with the last or the preceding checkpoint was measured, it is drawn as a curve.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import (
    ConceptRecords,
    coord_column,
    has_coord,
    mean_over_seeds,
    preferred_site,
    records_by_concept,
    select_rows,
    tidy_records,
)
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views._axes import (
    stage_boundaries,
    stage_boundary_crosses,
    step_axis,
    thin_checkpoints,
    upright_step_axis,
)
from ontogeny.views._chart_parts import inline_rows, multiples_or_blank, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, DIVERGING_SCHEME

title = "Drift of directions"
place = 7
needs = frozenset({"step", "concept", "site", "metric", "value", "coords"})

CURVES = {"cosine_final": "with the last checkpoint", "cosine_previous": "with the preceding one"}
STABLE = 0.9
"""Cosine with the last direction from which a title calls a direction the same."""
MOST = 48
"""Maximum number of checkpoints; a matrix has its square of cells."""
where = (
    f"metric = 'best_site' or (metric = 'cosine' and {{thin:{MOST}:cosine}} and {{other:{MOST}:cosine}}) "
    f"or ({metric_condition(*CURVES)} and {{thin:{MOST}:{'+'.join(CURVES)}}} and {{site:{'+'.join(CURVES)}}})"
)


def select(records: pd.DataFrame) -> pd.DataFrame:
    pairs = records["metric"].eq("cosine") & has_coord(records, "other_step")
    return records[pairs | records["metric"].isin([*CURVES, "best_site"])]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(
        tidy_records(select(records)), make_timeline(records), MOST, "cosine", *CURVES
    )
    charts = [chart for s in records_by_concept(table) if (chart := _panel(s, line, fewer)) is not None]
    measured = table[table["metric"].isin(["cosine", *CURVES])]
    return multiples_or_blank(charts, title, measured, "the cosine of two checkpoints' directions")


def _panel(subject: ConceptRecords, line: Timeline, fewer: str) -> Any:
    line = line.among(subject.rows)
    rows = select_rows(subject.rows, "cosine", *CURVES)
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return None
    pairs = rows[rows["metric"].eq("cosine")]
    rows = pairs if len(pairs) else rows
    site = preferred_site(subject.rows, rows)
    rows = rows[rows["site"].eq(site)]
    rows = rows[rows["method"].eq(rows["method"].iloc[0])].assign(name=subject.name)
    chart = _matrix(rows, line) if len(pairs) else _curves(rows, line)
    heading = panel_title(f"{subject.name}: {_headline(rows, line)}", site, rows["method"].iloc[0], fewer)
    return None if chart is None else chart.properties(title=heading, width=CHART_WIDTH / 3 - 60)


def _headline(rows: pd.DataFrame, line: Timeline) -> str:
    """Since when the direction has kept its last value."""
    end = line.moments.iloc[-1]
    if rows["metric"].eq("cosine").any():
        other = _with_partners(rows, line)
        rows = rows[other["other"].eq(end["step"]) & other["other_stage"].eq(end["stage"])]
    else:
        rows = rows[rows["metric"].eq("cosine_final")]
    placed = line.place(rows)
    turned = placed[placed["value"].lt(STABLE)]
    later = placed if turned.empty else placed[placed["age"].gt(turned["age"].max())]
    if later.empty or len(placed) < 2:
        return "directions over training"
    first = later.iloc[0]
    if first["stage"] == end["stage"] and first["step"] == end["step"]:
        return "still turns at the end"
    at = checkpoint_label(first["stage"], None if first["step"] % 1 else first["step"])
    return f"cosine with the last ≥ {format_score(STABLE)} from {at} on"


def _with_partners(rows: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    """The rows with stage and step of their second checkpoint; rows of old runs name no stage, since both are of one."""
    stage = coord_column(rows, "other_stage")
    stage = stage.where(stage.ne(""), rows["stage"])
    return rows.assign(other=line.numbered_steps(stage, coord_column(rows, "other_step")), other_stage=stage)


def _matrix(rows: pd.DataFrame, line: Timeline) -> Any:
    rows = _with_partners(rows, line)
    others = line.moments[["stage", "step", "age_low", "age_high"]].set_axis(
        ["other_stage", "other", "low", "high"], axis=1
    )
    cells = mean_over_seeds(
        line.place(rows).drop(columns=["low", "high"]).merge(others, on=["other_stage", "other"]),
        "other_stage",
        "other",
    )
    if cells.empty:
        return None
    columns = ("name", "site", "stage", "step", "other_stage", "other", "value", "age_low", "age_high", "low", "high")
    scale = alt.Scale(scheme=DIVERGING_SCHEME, domain=[-1, 1], reverse=True)
    legend = alt.Legend(title="cosine", orient="bottom", type="gradient", gradientLength=260)
    tooltip = [alt.Tooltip("name:N", title="concept"), alt.Tooltip("stage:N"), *number_tooltips("step", digits=",")]
    tooltip += [alt.Tooltip("other_stage:N"), *number_tooltips("other", digits=",")]
    tooltip += [alt.Tooltip("value:Q", title="cosine", format=".3f")]
    chart = Chart(inline_rows(cells, *columns)).mark_rect(x2Offset=0.6, y2Offset=0.6)
    chart = chart.encode(
        x=step_axis(line, ticks=5, brief=True, field="age_low"),
        x2="age_high:Q",
        y=upright_step_axis(line, ticks=6, brief=True, field="low"),
        y2="high:Q",
        color=alt.Color("value:Q", scale=scale, legend=legend),
        tooltip=tooltip,
    )
    return overlay(chart, *stage_boundary_crosses(line)).properties(height=CHART_WIDTH / 3 - 60)


def _curves(rows: pd.DataFrame, line: Timeline) -> Any:
    placed = mean_over_seeds(line.place(rows), "site", "metric")
    placed = placed.assign(against=placed["metric"].map(CURVES))
    if placed.empty:
        return None
    scale = alt.Scale(domain=list(CURVES.values()), range=list(CATEGORY_COLOURS[:2]))
    chart = Chart(inline_rows(placed, "name", "age", "stage", "step", "against", "value")).mark_line(point=True)
    chart = chart.encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y(
            "value:Q", title="cosine (−1 to 1)", scale=alt.Scale(domain=[min(0.0, float(placed["value"].min())), 1])
        ),
        color=alt.Color("against:N", scale=scale, legend=alt.Legend(title="cosine", orient="bottom")),
        tooltip=["name:N", "stage:N", *number_tooltips("step", digits=","), "against:N", *number_tooltips("value")],
    )
    return overlay(*stage_boundaries(line, height=150, names=False), chart).properties(height=150)
