"""Dimensions of the activations through training, and the share of variance of the largest ones.

Top: effective dimension of the kernel (if measured) or participation ratio of the covariance, one line per layer; early layers are light.
Below: share of variance of the first principal components at each concept's best site; the rest up to 1 is in later components.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import (
    ConceptRecords,
    coord_column,
    evenly_spread,
    mean_over_seeds,
    preferred_site,
    records_by_concept,
    select_rows,
    tidy_records,
)
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    resolve_scales,
    small_multiples,
)
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._theme import CHART_WIDTH, ORDINAL_SCHEME

title = "Spectrum"
place = 9
needs = frozenset({"step", "concept", "site", "layer", "metric", "value", "coords"})

DIMENSIONS = {"effective_dimension": "effective dimension", "participation_ratio": "participation ratio"}
MOST, LAYERS, RANKS = 60, 9, 10
OF = "+".join(DIMENSIONS)
select = rows_with_metrics(*DIMENSIONS, "variance_share", "best_site")
where = (
    f"metric = 'best_site' or ({metric_condition(*DIMENSIONS)} and head is null and {{thin:{MOST}:{OF}}}) "
    f"or (metric = 'variance_share' and {{site:variance_share}} and {{thin:{MOST}:{OF}}})"
)


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, *DIMENSIONS)
    several = list(records_by_concept(table))
    above = [chart for s in several if (chart := _dimensions(s, line, fewer)) is not None]
    below = [chart for s in several if (chart := _shares(s, line)) is not None]
    if not above and not below:
        missing = table[table["metric"].ne("best_site")]
        return blank_chart(title, missing_rows_reason(missing, "a dimension or a variance share"))
    blocks = [small_multiples(charts) for charts in (above, below) if charts]
    return blocks[0] if len(blocks) == 1 else resolve_scales(vconcat(*blocks, spacing=30), color="independent")


def _dimensions(subject: ConceptRecords, line: Timeline, fewer: str) -> Any:
    rows = select_rows(subject.rows, *DIMENSIONS)
    rows = line.place(rows[rows["value"].notna() & rows["head"].isna()])
    if rows.empty:
        return None
    metric = next(m for m in DIMENSIONS if m in set(rows["metric"]))
    rows = rows[rows["metric"].eq(metric)]
    rows = mean_over_seeds(rows[rows["method"].eq(rows["method"].iloc[0])], "site")
    rows = rows[rows["layer"].isin(evenly_spread(sorted(rows["layer"].unique()), LAYERS))]
    legend = alt.Legend(title="layer", orient="bottom", columns=12, symbolType="stroke", symbolSize=200)
    lines = Chart(inline_rows(rows, "site", "layer", "age", "stage", "step", "value")).mark_line(strokeWidth=1.8)
    lines = lines.encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y("value:Q", title=f"{DIMENSIONS[metric]} (dimensions)", axis=alt.Axis(tickCount=5)),
        color=alt.Color("layer:O", scale=alt.Scale(scheme=alt.SchemeParams(**ORDINAL_SCHEME)), legend=legend),
        detail="site:N",
        tooltip=["site:N", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value", digits=".2f")],
    )
    heading = panel_title(f"{subject.name}: {_moved(rows)}", rows["method"].iloc[0], fewer)
    return _panel([lines, lines.mark_circle(size=16)], heading, line)


def _moved(rows: pd.DataFrame) -> str:
    """The change of the deepest layer."""
    deepest = rows[rows["layer"].eq(rows["layer"].max())]
    first, last = (
        float(deepest.loc[deepest["age"].eq(age), "value"].iloc[0])
        for age in (deepest["age"].min(), deepest["age"].max())
    )
    moved = "" if deepest["age"].nunique() < 2 else f"from {first:.0f} to "
    return f"{moved}{last:.0f} dimensions at {deepest['site'].iloc[0]}"


def _shares(subject: ConceptRecords, line: Timeline) -> Any:
    rows = select_rows(subject.rows, "variance_share")
    rows = rows.assign(rank=pd.to_numeric(coord_column(rows, "rank"), errors="coerce"))
    rows = line.place(rows[rows["value"].notna() & rows["rank"].le(RANKS)])
    if rows.empty:
        return None
    site = preferred_site(subject.rows, rows)
    rows = mean_over_seeds(rows[rows["site"].eq(site)], "site", "rank")
    # Shares are stacked: without one of them, those above it would be drawn too low.
    rows = rows[rows.groupby("age")["rank"].transform("nunique").eq(rows["rank"].nunique())]
    if rows.empty:
        return None
    legend = alt.Legend(title="principal component", orient="bottom", columns=12, symbolType="square", symbolSize=120)
    shares, colours = alt.Scale(domain=[0, 1]), alt.SchemeParams(name=ORDINAL_SCHEME["name"], extent=[0.1, 0.92])
    chart = Chart(inline_rows(rows, "rank", "age", "stage", "step", "value")).encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y("value:Q", title="share of variance (0–1)", stack="zero", scale=shares, axis=alt.Axis(tickCount=5)),
        color=alt.Color("rank:O", scale=alt.Scale(scheme=colours), legend=legend),
        order="rank:Q",
        tooltip=["rank:O", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value")],
    )
    # A single checkpoint is a bar.
    mark = chart.mark_area(opacity=0.9) if rows["age"].nunique() > 1 else chart.mark_bar(size=20)
    last = rows[rows["age"].eq(rows["age"].max()) & rows["rank"].eq(rows["rank"].min())]["value"].iloc[0]
    heading = panel_title(f"{subject.name}: first component {format_score(last)} of variance at the end", site)
    return _panel([mark], heading, line)


def _panel(layers: list[Any], heading: alt.TitleParams, line: Timeline) -> Any:
    rules = stage_boundaries(line, height=140, names=False)
    return overlay(*layers, *rules).properties(width=CHART_WIDTH / 3 - 55, height=140, title=heading)
