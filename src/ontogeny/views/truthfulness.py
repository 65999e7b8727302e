"""Truthfulness by stage: cosines of the truth directions, probe transfer, and steering of verdicts.

Top, stages × stages: the cosine of their directions; the AUROC of the probe along one stage's direction (columns) in another stage (rows);
and the change of that stage's verdicts when it is steered along the direction, where 1 is from all false to all true and a random
direction gives 0. Below: held-out statements of each stage, along its own direction and along the largest other component.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import ConceptRecords, coord_column, evenly_spread, mean_over_seeds
from ontogeny.findings.timeline import Timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import inline_rows, labelled_cells, number_tooltips, panel_title
from ontogeny.views._layout import Chart, hconcat, overlay
from ontogeny.views._legend import LegendEntry
from ontogeny.views._stage_grid import checkpoint_rows, lowest_pair, stack_concepts
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, DIVERGING_SCHEME, SEQUENTIAL_SCHEME

title = "Truthfulness, stage by stage"
place = 12
needs = frozenset({"stage", "step", "metric", "value", "coords", "control", "concept"})
METRICS = ("stage_cosine", "stage_auroc", "push_effect", "stage_projection")
MOST = 16
"""Maximum number of stages in the matrices."""
CLOUDS = 4
"""Maximum number of stages whose statements are drawn."""
_KEY = (LegendEntry("half-way between true and false statements", "upright", "#b9c0c8", (3, 3)),)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    what = "stage_cosine or push_effect"
    return stack_concepts(records, select(records), _subject, title=title, what=what, legend=_KEY, spacing=36)


def _subject(subject: ConceptRecords, line: Timeline) -> list[Any]:
    rows, names = checkpoint_rows(subject, line, most=MOST)
    squares = [square for square in _squares(rows, names) if square is not None]
    row = hconcat(*squares, spacing=30).resolve_scale(color="independent") if squares else None
    return [row, _clouds(rows, names)]


def _squares(table: pd.DataFrame, names: list[str]) -> list[Any]:
    table = table[table["control"].eq("") & table["moment"].isin(names) & table["other"].isin(names)]
    pushes = table["metric"].eq("push_effect") & coord_column(table, "length").ne("target")
    signed = alt.Scale(scheme=DIVERGING_SCHEME, domain=[-1, 1], reverse=True)
    from_half = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.5, 1], clamp=True)
    cosines, aurocs = (table[table["metric"].eq(metric)] for metric in ("stage_cosine", "stage_auroc"))
    return [
        _square(cosines, names, "cosine of the directions", "stage", signed),
        _square(aurocs, names, "AUROC of the probe along it", "vector of", from_half),
        _square(table[pushes], names, "change of verdicts by steering along it", "vector of", signed),
    ]


def _square(rows: pd.DataFrame, names: list[str], what: str, across: str, scale: alt.Scale) -> Any:
    if rows.empty:
        return None
    cells = mean_over_seeds(rows, "moment", "other")
    cells = cells.assign(
        label=[format_score(value) for value in cells["value"]],
        ends=[f"[{format_score(a)}, {format_score(b)}]" for a, b in zip(cells["low"], cells["high"], strict=True)],
    )
    size = len(names)
    side = max(14.0, min(66.0, (CHART_WIDTH - 260) / 3 / size))
    columns = ("moment", "other", "value", "low", "high", "label", "ends", "concept", "site")
    base = Chart(inline_rows(cells, *columns)).encode(
        x=alt.X("other:N", sort=names, title=across, axis=alt.Axis(labelAngle=-35 if size > 3 else 0)),
        y=alt.Y("moment:N", sort=names, title="stage"),
    )
    tips = [alt.Tooltip("other:N", title=across), alt.Tooltip("moment:N", title="stage")]
    tips += [*number_tooltips("value", "low", "high"), "concept:N", "site:N"]
    # Cells that are too small for numbers need a legend.
    legend = None if side >= 30 else alt.Legend(title=None, orient="right", gradientLength=120)
    labels: dict[str, dict[str, Any]] = {}
    if side >= 30:
        labels["label"] = {"fontSize": 12, "dy": -6 if side >= 50 else 0}
    if side >= 50:
        labels["ends"] = {"fontSize": 9, "dy": 9, "opacity": 0.85}
    dark = "abs(datum.value) > 0.7" if scale.scheme == DIVERGING_SCHEME else "datum.value > 0.8"
    layers = labelled_cells(base, alt.Color("value:Q", scale=scale, legend=legend), tips, dark, **labels)
    said = lowest_pair(cells, "value")
    heading = panel_title(what, *dict.fromkeys([str(rows["concept"].iloc[0]), str(rows["site"].iloc[0]), said]))
    return overlay(*layers).properties(width=side * size, height=side * size, title=heading)


def _clouds(table: pd.DataFrame, names: list[str]) -> Any:
    rows = table[table["metric"].eq("stage_projection")]
    if rows.empty:
        return None
    rows = rows.assign(**{key: coord_column(rows, key) for key in ("axis", "example", "label", "text")})
    wide = rows.pivot_table(
        index=["moment", "example", "label", "text"], columns="axis", values="value", sort=False, aggfunc="first"
    ).reset_index()
    if not {"direction", "beside"} <= set(wide.columns):
        return None
    kinds = alt.Scale(domain=["true", "false"], range=list(CATEGORY_COLOURS[:2]))
    colour = alt.Color("label:N", scale=kinds, legend=alt.Legend(title="held-out statements", orient="right"))
    bare = alt.Axis(ticks=False, labels=False, grid=False)
    charts = []
    for name in evenly_spread([name for name in names if name in set(wide["moment"])], CLOUDS):
        points = wide[wide["moment"].eq(name)]
        cloud = Chart(inline_rows(points, "direction", "beside", "label", "text")).mark_circle(size=26, opacity=0.65)
        cloud = cloud.encode(
            x=alt.X("direction:Q", title="along its direction (units of the stream)", axis=bare),
            y=alt.Y("beside:Q", title="beside it (units of the stream)", axis=bare),
            color=colour,
            tooltip=["text:N", "label:N"],
        )
        zero = Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(color="#b9c0c8", strokeDash=[3, 3])
        panel = overlay(zero.encode(x="x:Q"), cloud)
        charts.append(panel.properties(width=CHART_WIDTH / 4 - 50, height=150, title=panel_title(name)))
    return hconcat(*charts, spacing=24)
