"""How many dimensions the activations use through training, and how much of their variance the largest ones hold.

Above: effective dimension of the kernel (where measured) or participation ratio of the covariance, one line a layer, light
layers are early ones. Below: the share of variance of the first principal components at each concept's best site; what is
missing to one lies in the components after them.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import (
    ConceptRecords,
    best_site_rows,
    coord_column,
    mean_over_seeds,
    records_by_concept,
    select_rows,
    tidy_records,
)
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title, small_multiples
from ontogeny.views._theme import CHART_WIDTH, ORDINAL_SCHEME

title = "Spectrum"
place = 9
needs = frozenset({"step", "concept", "site", "layer", "metric", "value", "coords"})

DIMENSIONS = {"effective_dimension": "effective dimension", "participation_ratio": "participation ratio"}
MOST, LAYERS, RANKS = 60, 9, 10


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*DIMENSIONS, "variance_share", "best_site"])]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST)
    several = list(records_by_concept(table))
    above = [chart for s in several if (chart := _dimensions(s, line, fewer)) is not None]
    below = [chart for s in several if (chart := _shares(s, line)) is not None]
    if not above and not below:
        return blank_chart(
            title, missing_rows_reason(table[table["metric"].ne("best_site")], "a dimension or a variance share")
        )
    blocks = [small_multiples(charts) for charts in (above, below) if charts]
    return blocks[0] if len(blocks) == 1 else alt.vconcat(*blocks, spacing=30).resolve_scale(color="independent")


def _dimensions(subject: ConceptRecords, line: Timeline, fewer: str) -> Any:
    rows = select_rows(subject.rows, *DIMENSIONS)
    rows = line.place(rows[rows["value"].notna() & rows["head"].isna()])
    if rows.empty:
        return None
    metric = next(m for m in DIMENSIONS if m in set(rows["metric"]))
    rows = rows[rows["metric"].eq(metric)]
    rows = mean_over_seeds(rows[rows["method"].eq(rows["method"].iloc[0])], "site")
    layers = sorted(rows["layer"].unique())
    if len(layers) > LAYERS:
        rows = rows[rows["layer"].isin([layers[round(i * (len(layers) - 1) / (LAYERS - 1))] for i in range(LAYERS)])]
    legend = alt.Legend(title="layer", orient="bottom", columns=12, symbolType="stroke", symbolSize=200)
    drawn = alt.Chart(inline_rows(rows, "site", "layer", "age", "stage", "step", "value")).mark_line(strokeWidth=1.8)
    drawn = drawn.encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y("value:Q", title=f"{DIMENSIONS[metric]} (dimensions)", axis=alt.Axis(tickCount=5)),
        color=alt.Color("layer:O", scale=alt.Scale(scheme=alt.SchemeParams(**ORDINAL_SCHEME)), legend=legend),
        detail="site:N",
        tooltip=["site:N", "stage:N", alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", format=".2f")],
    )
    points = drawn.mark_circle(size=16)
    return _framed(
        [drawn, points],
        f"{subject.name} · dimensions",
        " · ".join(s for s in (rows["method"].iloc[0], fewer) if s),
        line,
    )


def _shares(subject: ConceptRecords, line: Timeline) -> Any:
    rows = select_rows(subject.rows, "variance_share")
    rows = rows.assign(rank=pd.to_numeric(coord_column(rows, "rank"), errors="coerce"))
    rows = line.place(rows[rows["value"].notna() & rows["rank"].le(RANKS)])
    if rows.empty:
        return None
    best = best_site_rows(subject.rows)["site"]
    site = next((s for s in best if s in set(rows["site"])), rows["site"].iloc[-1])
    rows = mean_over_seeds(rows[rows["site"].eq(site)], "site", "rank")
    # Shares are stacked: where one is missing, those above it would sink as if it were 0.
    rows = rows[rows.groupby("age")["rank"].transform("nunique").eq(rows["rank"].nunique())]
    if rows.empty:
        return None
    legend = alt.Legend(title="principal component", orient="bottom", columns=12, symbolType="square", symbolSize=120)
    drawn = alt.Chart(inline_rows(rows, "rank", "age", "stage", "step", "value")).encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y(
            "value:Q",
            stack="zero",
            title="share of variance (0–1)",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(tickCount=5),
        ),
        color=alt.Color(
            "rank:O",
            scale=alt.Scale(scheme=alt.SchemeParams(name=ORDINAL_SCHEME["name"], extent=[0.1, 0.92])),
            legend=legend,
        ),
        order="rank:Q",
        tooltip=["rank:O", "stage:N", alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", format=".3f")],
    )
    # An area needs two checkpoints; one alone is a bar.
    mark = drawn.mark_area(opacity=0.9) if rows["age"].nunique() > 1 else drawn.mark_bar(size=20)
    return _framed([mark], f"{subject.name} · variance", site, line)


def _framed(layers: list[Any], name: str, said: str, line: Timeline) -> Any:
    named = panel_title(name)
    named.subtitle = said
    rules = stage_boundaries(line, height=140, names=False)
    return alt.layer(*layers, *rules).properties(width=CHART_WIDTH / 3 - 55, height=140, title=named)
