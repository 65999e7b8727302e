"""The time axis of all views: steps on a log axis, tokens below, stages side by side with a rule between them."""

import math
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._chart_parts import inline_rows
from ontogeny.views._theme import MUTED_COLOUR


def step_axis(line: Timeline, *, ticks: int = 12, brief: bool = False, field: str = "age") -> alt.X:
    """Checkpoints along x, labelled with steps and, if known, tokens; `brief` for panels."""
    return alt.X(field, type="quantitative", scale=_scale(line), axis=_axis(line, ticks, brief))


def upright_step_axis(line: Timeline, *, ticks: int = 12, brief: bool = False, field: str = "age") -> alt.Y:
    """The same axis along y, first checkpoint on top, for checkpoint matrices."""
    scale = _scale(line)
    scale.reverse = True
    return alt.Y(field, type="quantitative", scale=scale, axis=_axis(line, ticks, brief, tokens=False))


def stage_boundaries(line: Timeline, *, height: float, names: bool = True) -> list[alt.Chart]:
    """A rule between stages, with the stage's name on top; nothing for a single stage."""
    if len(line.stages) < 2:
        return []
    edges = line.moments.groupby("stage", sort=False).agg(low=("age_low", "min"), high=("age_high", "max"))
    between = [(a + b) / 2 for a, b in zip(edges["high"][:-1], edges["low"][1:], strict=True)]
    rules = pd.DataFrame({"age": between})
    chart = alt.Chart(inline_rows(rules)).mark_rule(color=MUTED_COLOUR, strokeDash=[2, 3]).encode(x="age:Q")
    if not names:
        return [chart]
    labels = pd.DataFrame({"age": edges["low"].to_numpy(), "stage": list(edges.index)})
    text = alt.Chart(inline_rows(labels)).mark_text(
        align="left", baseline="bottom", dx=2, y=-3, color=MUTED_COLOUR, fontSize=10, fontStyle="italic"
    )
    return [chart, text.encode(x="age:Q", text="stage:N")]


def stage_boundary_crosses(line: Timeline) -> list[alt.Chart]:
    """Vertical and horizontal rules between stages, for checkpoint matrices."""
    down = stage_boundaries(line, height=0, names=False)
    return [*down, *(rule.encode(x=alt.value(0), x2=alt.value("width"), y="age:Q") for rule in down)]


def thin_checkpoints(table: pd.DataFrame, line: Timeline, most: int) -> tuple[pd.DataFrame, Timeline, str]:
    """At most about `most` checkpoints, evenly spread over the axis with both ends, and a subtitle if some were dropped."""
    if len(line.moments) <= most:
        return table, line, ""
    shown = line.ticks(most)[["stage", "step"]]
    few = table.merge(
        shown.assign(order=range(len(shown)), shown=True), on=["stage", "step"], how="left", suffixes=("_all", "")
    )
    few = few[few["shown"].notna() | few["step"].isna()]
    return few, make_timeline(few), f"{len(shown)} of {len(line.moments)} checkpoints drawn"


def _scale(line: Timeline) -> alt.Scale:
    if not line.stages:
        return alt.Scale(domain=[0, 1], nice=False, zero=False)
    domain = [float(line.moments["age_low"].min()), float(line.moments["age_high"].max())]
    return alt.Scale(domain=domain, nice=False, zero=False)


def _axis(line: Timeline, ticks: int, brief: bool, *, tokens: bool = True) -> alt.Axis:
    """Ticks at checkpoints, labelled with their steps instead of their ages."""
    checkpoints = line.ticks(ticks)
    with_tokens = tokens and bool(checkpoints["tokens"].notna().any())
    labels = {f"{row.age:.4f}": _label(row, with_tokens) for row in checkpoints.itertuples()}
    return alt.Axis(
        values=checkpoints["age"].tolist(),
        labelExpr=f"({_expression(labels)})[format(datum.value, '.4f')]" if labels else "''",
        title=_title(line, with_tokens, brief),
        labelLineHeight=13,
        labelFlush=False,
        labelOverlap=False,
    )


def _title(line: Timeline, tokens: bool, brief: bool) -> str:
    below = " · tokens" if tokens else ""
    if brief:
        return "training step" + below
    restarts = ", counted anew in each stage" if len(line.stages) > 1 else ""
    log = " (log scale)" if any(stage.log for stage in line.stages) else ""
    return f"training step{restarts}{log}{below}"


def _label(row: Any, tokens: bool) -> list[str]:
    steps = step_label(row.step)
    return [steps, _abbreviated_count(row.tokens) if not math.isnan(row.tokens) else ""] if tokens else [steps]


def step_label(step: float) -> str:
    """Label of a step; a checkpoint without a number is the end of its stage."""
    return "end" if step % 1 else _abbreviated_count(step)


def _abbreviated_count(number: float) -> str:
    """A count short enough for a tick: 12M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            scaled = number / (1e3 if letter == "k" else size)
            return f"{scaled:.0f}{letter}" if scaled >= 10 or scaled == int(scaled) else f"{scaled:.1f}{letter}"
    return f"{number:g}"


def _expression(labels: dict[str, list[str]]) -> str:
    """The labels as a Vega expression; digits and letters only, so nothing needs escaping."""
    pairs = (f"'{key}':[{','.join(repr(word) for word in words)}]" for key, words in labels.items())
    return "{" + ",".join(pairs) + "}"
