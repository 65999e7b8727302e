"""Probes as monitors: true-positive rate at a fixed false-positive rate, and frozen thresholds and probes.

Top: true-positive rate at a false-positive rate of 1 % or 5 %, over training, at each concept's best site, with its 95 % interval. Below: a
threshold set at one checkpoint (rows) and used at another (columns), with each checkpoint's own probe, or with the frozen probe. Colour and
upper number are the false-positive rate that results, the lower number is the true-positive rate. A value far from the diagonal means too
many alarms or too few. Bottom, for frozen probes: the AUROC of the old probe at another checkpoint.
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
from ontogeny.views._axes import place_label, stage_boundaries, step_axis
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    interval_band,
    labelled_cells,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    resolve_scales,
    small_multiples,
)
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._theme import CHART_WIDTH, SEQUENTIAL_SCHEME

title = "Probes as monitors"
place = 10
needs = frozenset({"step", "concept", "site", "metric", "method", "value", "low", "high", "coords"})
REALISED = ("realised_fpr", "realised_tpr")
FROZEN = ("frozen_fpr", "frozen_tpr")
METHODS = ("logistic", "mass_mean")
MOST = 10
"""Maximum number of checkpoints in a row or column, evenly spread; all are in the table."""
where = (
    f"{metric_condition(*REALISED, *FROZEN, 'frozen_auroc', 'best_site')} "
    "or (metric like 'tpr_at_%_fpr' and {site:tpr_at_%_fpr})"
)


def select(records: pd.DataFrame) -> pd.DataFrame:
    metrics = records["metric"]
    return records[metrics.isin([*REALISED, *FROZEN, "frozen_auroc", "best_site"]) | _is_tpr(metrics)]


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    several = list(records_by_concept(table))
    curves = [chart for s in several if (chart := _curves(s, line)) is not None]
    squares = [chart for s in several for of in (REALISED, FROZEN) if (chart := _matrix(s, line, of)) is not None]
    aurocs = [chart for s in several if (chart := _frozen_auroc(s, line)) is not None]
    groups = ((curves, 3), (squares, 2), (aurocs, 2))
    blocks = [small_multiples(charts, columns=columns) for charts, columns in groups if charts]
    if not blocks:
        rows = table[table["metric"].ne("best_site")]
        what = "tpr_at_1_fpr or realised_fpr (ontogeny monitor RUN makes them)"
        return blank_chart(title, missing_rows_reason(rows, what))
    return resolve_scales(vconcat(*blocks, spacing=36), color="independent")


def _is_tpr(metrics: pd.Series) -> pd.Series:
    return metrics.astype(str).str.fullmatch(r"tpr_at_[\d.]+_fpr")


def _one_method(rows: pd.DataFrame) -> pd.DataFrame:
    """The known values of the first method."""
    rows = rows[rows["value"].notna()]
    method = next((m for m in [*METHODS, *rows["method"].unique()] if m in set(rows["method"])), "")
    return rows[rows["method"].eq(method)]


def _curves(subject: ConceptRecords, line: Timeline) -> Any:
    rows = _one_method(subject.rows[_is_tpr(subject.rows["metric"])])
    if rows.empty:
        return None
    site = preferred_site(subject.rows, rows)
    curve = mean_over_seeds(line.place(rows[rows["site"].eq(site)]), "metric")
    if curve.empty:
        return None
    curve = curve.assign(name=[f"{_percent(metric)} %" for metric in curve["metric"]])
    rates = sorted(curve["name"].unique(), key=lambda name: float(name.split()[0]))
    base = Chart(inline_rows(curve, "name", "stage", "step", "age", "value", "low", "high")).encode(
        x=step_axis(line, ticks=5, brief=True), color=colour_by_name(rates, title="at a false-positive rate of")
    )
    scale = alt.Scale(domain=[0, 1])
    band = interval_band(base, curve, opacity=0.2).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point={"size": 14}).encode(
        y=alt.Y("value:Q", title="true-positive rate (0–1)", scale=scale),
        tooltip=["name:N", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value", "low", "high")],
    )
    last = curve[curve["age"].eq(curve["age"].max())]
    at_end = zip(last["name"], last["value"], strict=True)
    rates_at_end = ", ".join(f"{format_score(float(value))} at {name}" for name, value in at_end)
    heading = panel_title(f"{subject.name}: at the end {rates_at_end}", site, curve["method"].iloc[0])
    layers = [*stage_boundaries(line, height=190, names=False), band, lines]
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 55, height=190, title=heading)


def _percent(metric: str) -> str:
    return metric.removeprefix("tpr_at_").removesuffix("_fpr")


def _matrix(subject: ConceptRecords, line: Timeline, of: tuple[str, str]) -> Any:
    fpr, tpr = of
    rows = _one_method(select_rows(subject.rows, *of))
    rows = rows.assign(at=coord_column(rows, "at"))
    if rows.empty:
        return None
    rate = max(rows["at"], key=float)  # the rate that needs the fewest negatives
    rows = _from_to(rows[rows["at"].eq(rate)], line)
    cells = rows.pivot_table(index=["source", "target"], columns="metric", values="value", sort=False, aggfunc="first")
    cells = cells.reindex(columns=list(of)).reset_index().rename(columns={fpr: "value"})
    cells["label"] = [format_score(value) for value in cells["value"]]
    cells["below"] = [format_score(value) for value in cells[tpr]]
    scale = alt.Scale(scheme="blueorange", domain=[0, 4 * float(rate)], domainMid=float(rate), clamp=True)
    dark = f"datum.value > {2.5 * float(rate)} || datum.value < {0.3 * float(rate)}"
    what = "probe and threshold frozen" if of == FROZEN else "threshold"
    other = cells[cells["source"].ne(cells["target"])]["value"]
    reached = (
        f" {'give' if of == FROZEN else 'gives'} {100 * other.min():.0f}–{100 * other.max():.0f} % elsewhere"
        if len(other)
        else ""
    )
    text = f"{what} for {100 * float(rate):g} % false alarms{reached}"
    chart = _square(cells, rows, scale, "false alarms", dark, "true-positive rate")
    return chart.properties(title=_heading(subject, rows, text))


def _heading(subject: ConceptRecords, rows: pd.DataFrame, text: str) -> alt.TitleParams:
    sites = ", ".join(dict.fromkeys(rows["site"]))
    return panel_title(f"{subject.name}: {text}", sites, rows["method"].iloc[0])


def _frozen_auroc(subject: ConceptRecords, line: Timeline) -> Any:
    """The AUROC of a probe that was fitted at another checkpoint."""
    rows = _one_method(select_rows(subject.rows, "frozen_auroc"))
    if rows.empty:
        return None
    rows = _from_to(rows, line)
    cells = rows.drop_duplicates(["source", "target"])[["source", "target", "value", "low", "high"]]
    ends = zip(cells["low"], cells["high"], strict=True)
    cells = cells.assign(
        label=[format_score(value) for value in cells["value"]],
        below=[f"{format_score(a)}–{format_score(b)}" for a, b in ends],
    )
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.5, 1], clamp=True)
    chart = _square(cells, rows, scale, "AUROC", "datum.value > 0.8", "95 % interval")
    return chart.properties(title=_heading(subject, rows, "AUROC of the frozen probe"))


def _from_to(rows: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    """The rows in order, with the names of the checkpoints of freezing (`source`) and use (`target`), some of each."""
    rows = line.place(rows)
    used = evenly_spread(list(dict.fromkeys(zip(rows["stage"], rows["step"], strict=True))), MOST)
    rows = rows[[place in used for place in zip(rows["stage"], rows["step"], strict=True)]]
    frozen = zip(coord_column(rows, "source_stage"), coord_column(rows, "source_step"), strict=True)
    ages = {place: line.age(place[0], _number(place[1])) for place in frozen}
    kept = evenly_spread(sorted(ages, key=lambda place: ages[place]), MOST)
    frozen = zip(coord_column(rows, "source_stage"), coord_column(rows, "source_step"), strict=True)
    rows = rows[[place in kept for place in frozen]]
    sources = zip(coord_column(rows, "source_stage"), coord_column(rows, "source_step"), strict=True)
    return rows.assign(
        source=[place_label(stage, _number(step), line) for stage, step in sources],
        target=[place_label(stage, step, line) for stage, step in zip(rows["stage"], rows["step"], strict=True)],
    )


def _number(step: str) -> float:
    """A step of coordinates; a half step for the end of a stage."""
    return float(step) if step not in ("None", "") else 0.5


def _square(
    cells: pd.DataFrame, rows: pd.DataFrame, scale: alt.Scale, what: str, dark: str, below: str
) -> alt.LayerChart:
    """Checkpoint of freezing (rows) against checkpoint of use (columns): a colour, its number, and the text `below`."""
    order = list(dict.fromkeys(rows["target"]))
    sources = [name for name in order if name in set(rows["source"])] or order
    side = max(34, min(54, 330 / len(order)))
    base = Chart(inline_rows(cells, "source", "target", "value", "label", "below")).encode(
        x=alt.X("target:N", sort=order, title="used at (training step)", axis=alt.Axis(labelAngle=-35)),
        y=alt.Y("source:N", sort=sources, title="frozen at (training step)"),
    )
    legend = alt.Legend(title=what, orient="right", gradientLength=120)
    tooltip = [alt.Tooltip("source:N", title="frozen at"), alt.Tooltip("target:N", title="used at")]
    tooltip += [alt.Tooltip("value:Q", title=what, format=".3f"), alt.Tooltip("below:N", title=below)]
    small = 10 if cells["below"].str.len().max() < 5 or side > 46 else 8
    labels: dict[str, dict[str, Any]] = {
        "label": {"fontSize": 11, "dy": -6},
        "below": {"fontSize": small, "dy": 7, "opacity": 0.8},
    }
    layers = labelled_cells(base, alt.Color("value:Q", scale=scale, legend=legend), tooltip, dark, **labels)
    return overlay(*layers).properties(width=side * len(order), height=side * len(sources))
