"""What a probe catches at a false-alarm rate that one could live with, and whether what was frozen once still holds.

Above: the share of positives over the threshold that lets 1 % or 5 % of negatives pass, over training, at each concept's best site.
Below: a threshold set at one checkpoint (down) and used at another (across), with each checkpoint's own probe or with the probe frozen,
too. The colour is the rate of false alarms that it really gives; in the cell that rate, and below it the share of positives caught. A
column far from its diagonal is a monitor that would drown in alarms, or sleep. Last, where probes were frozen, too: the AUROC of the old
probe on the texts of another checkpoint.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.sentences import format_score
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
from ontogeny.views._axes import stage_boundaries, step_axis, step_label
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    interval_band,
    missing_rows_reason,
    panel_title,
    small_multiples,
)
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR, SEQUENTIAL_SCHEME

title = "Standing guard"
place = 10
needs = frozenset({"step", "concept", "site", "metric", "method", "value", "low", "high", "coords"})
REALISED = ("realised_fpr", "realised_tpr")
FROZEN = ("frozen_fpr", "frozen_tpr")
METHODS = ("logistic", "mass_mean")


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[
        records["metric"].isin([*REALISED, *FROZEN, "frozen_auroc", "best_site"]) | _caught(records["metric"])
    ]


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    several = list(records_by_concept(table))
    curves = [chart for s in several if (chart := _curves(s, line)) is not None]
    squares = [chart for s in several for of in (REALISED, FROZEN) if (chart := _matrix(s, line, of)) is not None]
    worth = [chart for s in several if (chart := _worth(s, line)) is not None]
    drawn = [
        small_multiples(charts, columns=columns)
        for charts, columns in ((curves, 3), (squares, 2), (worth, 2))
        if charts
    ]
    if not drawn:
        rows = table[table["metric"].ne("best_site")]
        return blank_chart(
            title, missing_rows_reason(rows, "tpr_at_1_fpr or realised_fpr (ontogeny monitor RUN makes them)")
        )
    return alt.vconcat(*drawn, spacing=36).resolve_scale(color="independent")


def _caught(metrics: pd.Series) -> pd.Series:
    return metrics.astype(str).str.fullmatch(r"tpr_at_[\d.]+_fpr")


def _one_method(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the known values, those of the method that comes first."""
    rows = rows[rows["value"].notna()]
    method = next((m for m in [*METHODS, *rows["method"].unique()] if m in set(rows["method"])), "")
    return rows[rows["method"].eq(method)]


def _curves(subject: ConceptRecords, line: Timeline) -> Any:
    rows = _one_method(subject.rows[_caught(subject.rows["metric"])])
    best = best_site_rows(subject.rows)["site"]
    site = next((s for s in best if s in set(rows["site"])), None) or next(iter(rows["site"]), "")
    curve = mean_over_seeds(line.place(rows[rows["site"].eq(site)]), "metric")
    if curve.empty:
        return None
    curve = curve.assign(name=[f"{_percent(metric)} %" for metric in curve["metric"]])
    rates = sorted(curve["name"].unique(), key=lambda name: float(name.split()[0]))
    base = alt.Chart(inline_rows(curve, "name", "stage", "step", "age", "value", "low", "high")).encode(
        x=step_axis(line, ticks=5, brief=True), color=colour_by_name(rates, title="at a false-positive rate of")
    )
    scale = alt.Scale(domain=[0, 1])
    band = interval_band(base, curve, opacity=0.2).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point={"size": 14}).encode(
        y=alt.Y("value:Q", title="caught (0–1)", scale=scale),
        tooltip=["name:N", "stage:N", *(alt.Tooltip(f"{c}:Q", format=f) for c, f in _FORMATS.items())],
    )
    named = panel_title(subject.name)
    named.subtitle = f"{site} · {curve['method'].iloc[0]}"
    layers = [*stage_boundaries(line, height=190, names=False), band, lines]
    return alt.layer(*layers).properties(width=CHART_WIDTH / 3 - 55, height=190, title=named)


_FORMATS = {"step": ",", "value": ".3f", "low": ".3f", "high": ".3f"}


def _percent(metric: str) -> str:
    return metric.removeprefix("tpr_at_").removesuffix("_fpr")


def _matrix(subject: ConceptRecords, line: Timeline, of: tuple[str, str]) -> Any:
    false_alarms, caught = of
    rows = _one_method(select_rows(subject.rows, *of))
    rows = rows.assign(at=coord_column(rows, "at"))
    if rows.empty:
        return None
    rate = max(rows["at"], key=float)  # the one that the fewest negatives can resolve
    rows = _from_to(rows[rows["at"].eq(rate)], line)
    cells = rows.pivot_table(index=["source", "target"], columns="metric", values="value", sort=False, aggfunc="first")
    cells = cells.reindex(columns=list(of)).reset_index().rename(columns={false_alarms: "value"})
    cells["said"] = [format_score(value) for value in cells["value"]]
    cells["below"] = [format_score(value) for value in cells[caught]]
    scale = alt.Scale(scheme="blueorange", domain=[0, 4 * float(rate)], domainMid=float(rate), clamp=True)
    dark = f"datum.value > {2.5 * float(rate)} || datum.value < {0.3 * float(rate)}"
    named = panel_title(subject.name)
    what = "probe and threshold frozen" if of == FROZEN else "threshold"
    where = ", ".join(dict.fromkeys(rows["site"]))
    named.subtitle = f"{what} for {100 * float(rate):g} % false alarms, {where} · {rows['method'].iloc[0]}"
    return _square(cells, rows, scale, "false alarms", dark, ("share caught", "below")).properties(title=named)


def _worth(subject: ConceptRecords, line: Timeline) -> Any:
    """The AUROC of a probe that was learned at another checkpoint."""
    rows = _one_method(select_rows(subject.rows, "frozen_auroc"))
    if rows.empty:
        return None
    rows = _from_to(rows, line)
    cells = rows.drop_duplicates(["source", "target"])[["source", "target", "value", "low", "high"]]
    ends = zip(cells["low"], cells["high"], strict=True)
    cells = cells.assign(
        said=[format_score(value) for value in cells["value"]],
        below=[f"{format_score(a)}–{format_score(b)}" for a, b in ends],
    )
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.5, 1], clamp=True)
    named = panel_title(subject.name)
    where = ", ".join(dict.fromkeys(rows["site"]))
    named.subtitle = f"what a frozen probe still tells, {where} · {rows['method'].iloc[0]}"
    shown = _square(cells, rows, scale, "AUROC", "datum.value > 0.8", ("95 % interval", "below"))
    return shown.properties(title=named)


def _from_to(rows: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    """In order, with the names of the checkpoint where it was frozen and of that where it is used."""
    rows = line.place(rows)
    sources = zip(coord_column(rows, "source_stage"), coord_column(rows, "source_step"), strict=True)
    return rows.assign(
        source=[_moment(stage, step, line) for stage, step in sources],
        target=[_moment(stage, step, line) for stage, step in zip(rows["stage"], rows["step"], strict=True)],
    )


def _square(
    cells: pd.DataFrame, rows: pd.DataFrame, scale: alt.Scale, what: str, dark: str, more: tuple[str, str]
) -> alt.LayerChart:
    """Where it was frozen (down) against where it is used (across): a colour, its number, and a smaller one below."""
    order = list(dict.fromkeys(rows["target"]))
    down = [moment for moment in order if moment in set(rows["source"])] or order
    side = max(34, min(54, 330 / len(order)))
    base = alt.Chart(inline_rows(cells, "source", "target", "value", "said", "below")).encode(
        x=alt.X("target:N", sort=order, title="training step of use", axis=alt.Axis(labelAngle=-35)),
        y=alt.Y("source:N", sort=down, title="training step frozen"),
    )
    legend = alt.Legend(title=what, orient="right", gradientLength=120)
    told = [alt.Tooltip("source:N", title="frozen at"), alt.Tooltip("target:N", title="used at")]
    told += [alt.Tooltip("value:Q", title=what, format=".3f"), alt.Tooltip(f"{more[1]}:N", title=more[0])]
    squares = base.mark_rect(stroke="white", strokeWidth=1).encode(
        color=alt.Color("value:Q", scale=scale, legend=legend), tooltip=told
    )
    light = alt.condition(dark, alt.value("white"), alt.value(INK_COLOUR))
    small = 10 if cells["below"].str.len().max() < 5 or side > 46 else 8
    above = base.mark_text(fontSize=11, dy=-6).encode(text="said:N", color=light)
    below = base.mark_text(fontSize=small, dy=7, opacity=0.8).encode(text="below:N", color=light)
    return alt.layer(squares, above, below).properties(width=side * len(order), height=side * len(down))


def _moment(stage: str, step: object, line: Timeline) -> str:
    number = step_label(float(str(step))) if str(step) not in ("None", "") else "end"
    return f"{stage} {number}" if len(line.stages) > 1 else number
