"""Transfer of probes and vectors: the checkpoint where they were learned in rows, the one where they are tried in columns.

Four matrices per concept: AUROC of the source's probe, cosine of the two directions, effect of the source's vector (nats of the answers, or
standard deviations of the target's probe), and its KL on neutral text. Below: the vectors of all checkpoints in one target, with random
directions of equal norm (grey: 95 % of them) and the target's own vector (dashed); right: averages of several checkpoints. A cell that is
dark for the probe and pale for the vector was readable but not used.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import (
    ConceptRecords,
    coord_column,
    has_coord,
    mean_over_seeds,
    records_by_concept,
    tidy_records,
)
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views._axes import (
    stage_boundaries,
    stage_boundary_crosses,
    step_axis,
    upright_step_axis,
)
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    resolve_scales,
)
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import (
    CATEGORY_COLOURS,
    CHART_WIDTH,
    DIVERGING_SCHEME,
    INK_COLOUR,
    MUTED_COLOUR,
    SEQUENTIAL_SCHEME,
)

title = "Transfer"
place = 9
needs = frozenset({"step", "concept", "site", "metric", "method", "value", "low", "high", "coords"})

SQUARES = {
    "transfer_auroc": ("logistic", "AUROC"),
    "transfer_cosine": ("mass_mean", "cosine"),
    "transfer_effect": ("mass_mean", "effect"),
    "transfer_cost": ("mass_mean", "cost, nats"),
}
UNITS = {"answers": "nats", "readout": "spreads"}
MOST = 40
"""Maximum number of checkpoints; a matrix has its square of cells."""
OF = "+".join(SQUARES)
where = f"{metric_condition(*SQUARES)} and {{thin:{MOST}:{OF}}} and {{source:{MOST}:{OF}}}"


def select(records: pd.DataFrame) -> pd.DataFrame:
    """Pairs of checkpoints and the nulls of a target, without probes on texts of other concepts."""
    pairs = has_coord(records, "source_step") | has_coord(records, "rule") | records["control"].eq("random_direction")
    return records[records["metric"].isin(SQUARES) & pairs]


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(_of_pairs(records))
    charts = [chart for subject in records_by_concept(table) for chart in _rows_of(subject, line)]
    if not charts:
        what = "the transfer of a probe or vector (ontogeny transfer makes them)"
        return blank_chart(title, missing_rows_reason(table, what))
    return with_legend(
        resolve_scales(vconcat(*charts, spacing=30), color="independent"),
        LegendEntry("effect of a vector, with its 95 % interval", "dot", CATEGORY_COLOURS[0]),
        LegendEntry("95 % of random directions", "band", MUTED_COLOUR, opacity=0.18),
        LegendEntry("the target's own vector", "line", INK_COLOUR, (5, 3)),
    )


def _of_pairs(records: pd.DataFrame) -> pd.DataFrame:
    """Rows of the checkpoints that are a source or a target; others would be gaps in the matrices."""
    pairs, line = select(records), make_timeline(records)
    stages = coord_column(pairs, "source_stage")
    sources = zip(stages, line.numbered_steps(stages, coord_column(pairs, "source_step")), strict=True)
    targets = zip(pairs["stage"], line.numbered_steps(pairs["stage"], pairs["step"]), strict=True)
    moments, steps = {*sources, *targets}, line.numbered_steps(records["stage"], records["step"])
    here = zip(records["stage"], steps, strict=True)
    return records[pd.Series([moment in moments for moment in here], index=records.index, dtype=bool)]


def _rows_of(subject: ConceptRecords, line: Timeline) -> list[Any]:
    rows = subject.rows[subject.rows["value"].notna()]
    rows = rows.assign(
        source_stage=coord_column(rows, "source_stage"),
        source=line.numbered_steps(coord_column(rows, "source_stage"), coord_column(rows, "source_step")),
        outcome=coord_column(rows, "outcome"),
        rule=coord_column(rows, "rule"),
        k=pd.to_numeric(coord_column(rows, "average_of"), errors="coerce"),
    )
    if rows.empty:
        return []
    pairs = rows[rows["control"].eq("") & rows["source"].notna()]
    tried, learned = _thinned(pairs, line, ["stage", "step"]), _thinned(pairs, line, ["source_stage", "source"])
    pairs = pairs.merge(tried.moments[["stage", "step"]], on=["stage", "step"])
    sources = learned.moments[["stage", "step"]].set_axis(["source_stage", "source"], axis=1)
    pairs = pairs.merge(sources, on=["source_stage", "source"])
    squares = [_square(pairs, metric, tried, learned) for metric in SQUARES] if _is_matrix(pairs) else []
    curve = _curve(rows, pairs, learned, line)
    shown = [square for square in squares if square is not None]
    charts = [resolve_scales(hconcat(*shown, spacing=18), color="independent")] if shown else []
    charts += [] if curve is None else [curve]
    if charts:
        count = max(len(tried.moments), len(learned.moments))
        fewer = f" · {count} of {len(line.moments)} checkpoints drawn, with the extremes" * (count < len(line.moments))
        heading = panel_title(f"{subject.name}: {_headline(pairs)}", f"{rows['site'].iloc[0]}{fewer}")
        charts[0] = resolve_scales(vconcat(charts[0], title=heading), color="independent")
    return charts


def _thinned(pairs: pd.DataFrame, line: Timeline, columns: list[str]) -> Timeline:
    """The timeline of the sources or the targets that have room in a matrix."""
    series = pairs.groupby(columns, sort=False)["value"].mean().reset_index()
    series = series.set_axis(["stage", "step", "value"], axis=1)
    room = MOST + 2 * len(line.stages)
    return line.among(line.thin(series, MOST if len(series) > room else room))


def _headline(pairs: pd.DataFrame) -> str:
    """The vector with the largest effect, or the range of the probes' AUROC."""
    for metric, text in (("transfer_effect", "largest effect"), ("transfer_auroc", "highest AUROC")):
        rows = pairs[pairs["metric"].eq(metric)]
        other = rows[rows["stage"].ne(rows["source_stage"]) | rows["step"].ne(rows["source"])]
        if len(other):
            top = other.iloc[int(other["value"].argmax())]
            learned = checkpoint_label(top["source_stage"], None if top["source"] % 1 else top["source"])
            tried = checkpoint_label(top["stage"], None if top["step"] % 1 else top["step"])
            return f"{text} of another checkpoint {top['value']:.2f}, learned at {learned}, tried at {tried}"
    return "transfer"


def _is_matrix(pairs: pd.DataFrame) -> bool:
    """Whether there are enough targets for a matrix: more than one, and at least a quarter of the sources."""
    into, of = (len(pairs[names].drop_duplicates()) for names in (["stage", "step"], ["source_stage", "source"]))
    return into > 1 and 4 * into >= of


def _with_ages(pairs: pd.DataFrame, tried: Timeline, learned: Timeline) -> pd.DataFrame:
    """The pairs with the ages of source and target."""
    columns = ["source_stage", "source", "source_age", "source_low", "source_high"]
    moments = learned.moments[["stage", "step", "age", "age_low", "age_high"]].set_axis(columns, axis=1)
    return mean_over_seeds(tried.place(pairs).merge(moments, on=["source_stage", "source"]), "source_stage", "source")


def _square(pairs: pd.DataFrame, metric: str, tried: Timeline, learned: Timeline) -> Any:
    method, name = SQUARES[metric]
    rows = pairs[pairs["metric"].eq(metric) & pairs["method"].eq(method)]
    cells = _with_ages(rows, tried, learned)
    if cells.empty:
        return None
    outcome = UNITS.get(str(rows["outcome"].iloc[0]), "")
    text = f"{name}, {outcome}" if metric == "transfer_effect" and outcome else name
    side = CHART_WIDTH / 4 - 62
    legend = alt.Legend(title=None, orient="bottom", type="gradient", gradientLength=side - 20)
    chart = Chart(inline_rows(cells, *_COLUMNS)).mark_rect(x2Offset=0.6, y2Offset=0.6)
    chart = chart.encode(
        x=step_axis(tried, ticks=4, brief=True, field="age_low", name="tried at step"),
        x2="age_high:Q",
        y=upright_step_axis(learned, ticks=5, brief=True, field="source_low", name="learned at step"),
        y2="source_high:Q",
        color=alt.Color("value:Q", scale=_scale(metric, cells["value"]), legend=legend),
        tooltip=[*_PLACES, "stage:N", "step:Q", alt.Tooltip("value:Q", title=text, format=".3f")],
    )
    return overlay(chart, *stage_boundary_crosses(tried)).properties(width=side, height=side, title=panel_title(text))


_PLACES = (alt.Tooltip("source_stage:N", title="learned at"), alt.Tooltip("source:Q", title="step"))
_COLUMNS = ("stage", "step", "source_stage", "source", "value", "age_low", "age_high", "source_low", "source_high")


def _scale(metric: str, values: pd.Series) -> alt.Scale:
    if metric == "transfer_auroc":
        return alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.5, 1], clamp=True)
    if metric == "transfer_cost":
        return alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0, max(float(values.max()), 1e-6)])
    far = 1.0 if metric == "transfer_cosine" else max(float(values.abs().max()), 1e-6)
    return alt.Scale(scheme=DIVERGING_SCHEME, domain=[-far, far], reverse=True)


def _curve(rows: pd.DataFrame, pairs: pd.DataFrame, learned: Timeline, line: Timeline) -> Any:
    """The effects of all vectors in the last target, and of the averages."""
    effects = pairs[pairs["metric"].eq("transfer_effect")]
    last = line.last(effects) if len(effects) else effects
    if last.empty:
        return None
    stage, step = last["stage"].iloc[0], last["step"].iloc[0]
    cells = _with_ages(last.drop(columns=["age", "age_low", "age_high"]), line, learned).sort_values("source_age")
    here = rows[rows["stage"].eq(stage) & rows["step"].eq(step) & rows["metric"].eq("transfer_effect")]
    means = mean_over_seeds(here[here["k"].notna()], "k", "rule")
    scale = alt.Scale(domain=_reach(here), nice=True)
    unit = UNITS.get(str(last["outcome"].iloc[0]), "nats")
    y = alt.Y("value:Q", title=f"effect in {checkpoint_label(stage, None if step % 1 else step)} ({unit})", scale=scale)
    wide = CHART_WIDTH - 90 if means.empty else CHART_WIDTH - 340
    x = step_axis(line, ticks=10 if means.empty else 7, brief=True, field="source_age", name="learned at step")
    base = Chart(inline_rows(cells, "source_stage", "source", "source_age", "value", "low", "high")).encode(x=x)
    dots = base.mark_circle(color=CATEGORY_COLOURS[0], size=30, opacity=1).encode(
        y=y, tooltip=[*_PLACES, *number_tooltips("value", "low", "high")]
    )
    floor = _floor(here, cells[cells["source_stage"].eq(stage) & cells["source"].eq(step)], scale)
    bars = base.mark_rule(color=CATEGORY_COLOURS[0], opacity=0.5).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    layers = [*stage_boundaries(line, height=170, names=False), *floor, bars, dots]
    curve = overlay(*layers).properties(width=wide, height=170)
    if means.empty:
        return curve
    return resolve_scales(hconcat(curve, _averages(means, floor, y), spacing=18), color="independent")


def _reach(rows: pd.DataFrame) -> list[float]:
    ends = pd.concat([rows["low"], rows["high"], rows["value"]]).dropna()
    return [min(0.0, float(ends.min())), max(0.0, float(ends.max()))]


def _floor(here: pd.DataFrame, own: pd.DataFrame, scale: alt.Scale) -> list[Any]:
    """Zero, the random directions, and the target's own vector."""
    nulls = here[here["control"].eq("random_direction")]
    marks: list[Any] = [Chart(inline_rows(pd.DataFrame({"value": [0.0]}))).mark_rule(color=MUTED_COLOUR)]
    if len(own):
        marks.append(Chart(inline_rows(own, "value")).mark_rule(color=INK_COLOUR, strokeDash=[5, 3]))
    marks = [mark.encode(y=alt.Y("value:Q", scale=scale)) for mark in marks]
    if len(nulls):
        band = pd.DataFrame({"low": [nulls["low"].min()], "high": [nulls["high"].max()]})
        grey = Chart(inline_rows(band)).mark_rect(color=MUTED_COLOUR, opacity=0.18)
        marks.insert(0, grey.encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"))
    return marks


def _averages(means: pd.DataFrame, floor: list[Any], y: alt.Y) -> Any:
    """The effect of the mean direction of k checkpoints, by their choice."""
    names = [rule for rule in ("last", "best", "even") if rule in set(means["rule"])]
    sizes = sorted(means["k"].unique())
    axis = alt.X("k:O", sort=sizes, title="checkpoints averaged", axis=alt.Axis(labelAngle=0, format="d"))
    base = Chart(inline_rows(means.assign(name=means["rule"]).sort_values("k"), "k", "name", "value", "low", "high"))
    lines = base.mark_line(point={"size": 22}, strokeWidth=1.5).encode(
        x=axis,
        y=y,
        color=colour_by_name(names, title="which"),
        tooltip=["k:O", "name:N", *number_tooltips("value", "low", "high")],
    )
    return overlay(*floor, lines).properties(width=150, height=170)
