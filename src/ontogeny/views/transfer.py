"""What is learned at one checkpoint, tried at another: learned down, tried across, time on both axes.

Four squares a concept: how well the probe still tells the classes apart, the cosine of the two directions, what the vector changes there
(nats of its answers, or spreads of the model's own probe), and what it costs on neutral text. Below: the vectors of all checkpoints
moved into one model, beside random directions of the same length (grey: 95 % of them) and that model's own vector (dashed). A square that
is dark for the probe and pale for the vector was read and not used.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import Subject, coord, has_coord, over_seeds, subjects, tidy
from ontogeny.findings.timeline import Timeline, timeline
from ontogeny.views._axes import age_axis, stage_rules, step_axis, thinned
from ontogeny.views._pieces import blank, heading, inline, reason
from ontogeny.views._theme import CATEGORIES, INK, MAGNITUDE, MUTED, SIGNED, WIDTH

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
"""Checkpoints drawn: a matrix has their square."""


def select(records: pd.DataFrame) -> pd.DataFrame:
    """Pairs of checkpoints, and the nulls of a target; not one concept's probe on another's texts."""
    pairs = has_coord(records, "source_step") | records["control"].eq("random_direction")
    return records[records["metric"].isin(SQUARES) & pairs]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thinned(tidy(select(records)), timeline(records), MOST)
    drawn = [chart for subject in subjects(table) for chart in _rows_of(subject, line, fewer)]
    if not drawn:
        return blank(title, reason(table, "the transfer of a probe or vector (ontogeny transfer makes them)"))
    return alt.vconcat(*drawn, spacing=30).resolve_scale(color="independent")


def _rows_of(subject: Subject, line: Timeline, fewer: str) -> list[Any]:
    rows = subject.rows[subject.rows["value"].notna()]
    rows = rows.assign(
        source_stage=coord(rows, "source_stage"),
        source=pd.to_numeric(coord(rows, "source_step"), errors="coerce"),
        outcome=coord(rows, "outcome"),
    )
    if rows.empty:
        return []
    pairs = rows[rows["control"].eq("") & rows["source"].notna()]
    squares = [_square(pairs, metric, line) for metric in SQUARES] if _is_matrix(pairs) else []
    curve = _curve(rows, pairs, line)
    shown = [square for square in squares if square is not None]
    made = [alt.hconcat(*shown, spacing=18).resolve_scale(color="independent")] if shown else []
    made += [] if curve is None else [curve]
    if not made:
        return []
    said = f"{subject.name} · {rows['site'].iloc[0]}" + (f" · {fewer}" if fewer else "")
    made[0] = alt.vconcat(made[0], title=heading(said)).resolve_scale(color="independent")
    return made


def _is_matrix(pairs: pd.DataFrame) -> bool:
    return len(pairs[["stage", "step"]].drop_duplicates()) > 1


def _with_ages(pairs: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    """Source moments beside those of the target."""
    columns = ["source_stage", "source", "source_age", "source_low", "source_high"]
    moments = line.moments[["stage", "step", "age", "age_low", "age_high"]].set_axis(columns, axis=1)
    return over_seeds(line.place(pairs).merge(moments, on=["source_stage", "source"]), "source_stage", "source")


def _square(pairs: pd.DataFrame, metric: str, line: Timeline) -> Any:
    method, name = SQUARES[metric]
    rows = pairs[pairs["metric"].eq(metric) & pairs["method"].eq(method)]
    cells = _with_ages(rows, line)
    if cells.empty:
        return None
    outcome = UNITS.get(str(rows["outcome"].iloc[0]), "")
    said = f"{name}, {outcome}" if metric == "transfer_effect" and outcome else name
    side = WIDTH / 4 - 62
    legend = alt.Legend(title=None, orient="bottom", type="gradient", gradientLength=side - 20)
    drawn = alt.Chart(inline(cells, *_COLUMNS)).mark_rect(x2Offset=0.6, y2Offset=0.6)
    drawn = drawn.encode(
        x=step_axis(line, ticks=4, brief=True, field="age_low"),
        x2="age_high:Q",
        y=age_axis(line, ticks=5, brief=True, field="source_low"),
        y2="source_high:Q",
        color=alt.Color("value:Q", scale=_scale(metric, cells["value"]), legend=legend),
        tooltip=["source_stage:N", "source:Q", "stage:N", "step:Q", alt.Tooltip("value:Q", title=said, format=".3f")],
    )
    return drawn.properties(width=side, height=side, title=heading(said))


_COLUMNS = ("stage", "step", "source_stage", "source", "value", "age_low", "age_high", "source_low", "source_high")


def _scale(metric: str, values: pd.Series) -> alt.Scale:
    if metric == "transfer_auroc":
        return alt.Scale(scheme=MAGNITUDE, domain=[0.5, 1], clamp=True)
    if metric == "transfer_cost":
        return alt.Scale(scheme=MAGNITUDE, domain=[0, max(float(values.max()), 1e-6)])
    far = 1.0 if metric == "transfer_cosine" else max(float(values.abs().max()), 1e-6)
    return alt.Scale(scheme=SIGNED, domain=[-far, far], reverse=True)


def _curve(rows: pd.DataFrame, pairs: pd.DataFrame, line: Timeline) -> Any:
    """All vectors in the last model that any was moved into."""
    effects = pairs[pairs["metric"].eq("transfer_effect")]
    last = line.last(effects) if len(effects) else effects
    if last.empty:
        return None
    stage, step = last["stage"].iloc[0], last["step"].iloc[0]
    cells = _with_ages(last.drop(columns=["age", "age_low", "age_high"]), line).sort_values("source_age")
    here = rows["stage"].eq(stage) & rows["step"].eq(step) & rows["metric"].eq("transfer_effect")
    nulls = rows[here & rows["control"].eq("random_direction")]
    own = cells[cells["source_stage"].eq(stage) & cells["source"].eq(step)]
    unit = UNITS.get(str(last["outcome"].iloc[0]), "nats")
    said = f"effect in {stage} {step:.0f} ({unit})"
    y = alt.Y("value:Q", title=said)
    x = step_axis(line, ticks=10, brief=True, field="source_age")
    base = alt.Chart(inline(cells, "source_stage", "source", "source_age", "value", "low", "high")).encode(x=x)
    layers = [*stage_rules(line, height=170, names=False)]
    if len(nulls):
        band = pd.DataFrame({"low": [nulls["low"].min()], "high": [nulls["high"].max()]})
        layers.append(alt.Chart(inline(band)).mark_rect(color=MUTED, opacity=0.18).encode(y="low:Q", y2="high:Q"))
    layers.append(alt.Chart(inline(pd.DataFrame({"value": [0.0]}))).mark_rule(color=MUTED).encode(y="value:Q"))
    layers.append(
        base.mark_errorbar(color=CATEGORIES[0], opacity=0.5).encode(y=alt.Y("low:Q", title=said), y2="high:Q")
    )
    layers.append(base.mark_circle(color=CATEGORIES[0], size=30, opacity=1).encode(y=y, tooltip=_told()))
    if len(own):
        mine = alt.Chart(inline(own, "value")).mark_rule(color=INK, strokeDash=[5, 3])
        layers.append(mine.encode(y="value:Q"))
    return alt.layer(*layers).properties(width=WIDTH - 90, height=170)


def _told() -> list[Any]:
    return [
        "source_stage:N",
        "source:Q",
        *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")),
    ]
