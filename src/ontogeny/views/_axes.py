"""The time axis of all views: steps on a log axis, tokens below, stages side by side with a rule between them."""

import itertools
import json
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.errors import escape_control
from ontogeny.findings.timeline import Timeline
from ontogeny.views._chart_parts import inline_rows
from ontogeny.views._layout import Chart
from ontogeny.views._theme import MUTED_COLOUR

_STAGE_LETTERS = 11
"""Maximum length of a stage's name below a tick."""


def step_axis(
    line: Timeline, *, ticks: int = 12, brief: bool = False, field: str = "age", name: str = "training step"
) -> alt.X:
    """Checkpoints along x, labelled with steps, stages and, if known, tokens; `brief` for panels."""
    return alt.X(field, type="quantitative", scale=_scale(line), axis=_axis(line, ticks, brief, name))


def upright_step_axis(
    line: Timeline, *, ticks: int = 12, brief: bool = False, field: str = "age", name: str = "training step"
) -> alt.Y:
    """The same axis along y, first checkpoint on top, for checkpoint matrices."""
    scale = _scale(line)
    scale.reverse = True
    return alt.Y(field, type="quantitative", scale=scale, axis=_axis(line, ticks, brief, name, tokens=False))


def stage_boundaries(line: Timeline, *, height: float, names: bool = True) -> list[alt.Chart]:
    """A rule between stages, with the stage's name on top; nothing for a single stage."""
    if len(line.stages) < 2:
        return []
    edges = line.stage_edges
    between = [(high + low) / 2 for (_, high), (low, _) in itertools.pairwise(edges.values())]
    rules = pd.DataFrame({"age": between})
    chart = Chart(inline_rows(rules)).mark_rule(color=MUTED_COLOUR, strokeDash=[2, 3]).encode(x="age:Q")
    if not names:
        return [chart]
    labels = pd.DataFrame({"age": [low for low, _ in edges.values()], "stage": list(edges)})
    text = Chart(inline_rows(labels)).mark_text(
        align="left", baseline="bottom", dx=2, y=-3, color=MUTED_COLOUR, fontSize=10, fontStyle="italic"
    )
    return [chart, text.encode(x="age:Q", text="stage:N")]


def stage_boundary_crosses(line: Timeline) -> list[alt.Chart]:
    """Vertical and horizontal rules between stages, for checkpoint matrices."""
    down = stage_boundaries(line, height=0, names=False)
    return [*down, *(rule.encode(x=alt.value(0), x2=alt.value("width"), y="age:Q") for rule in down)]


def thin_checkpoints(
    table: pd.DataFrame, line: Timeline, most: int, *metrics: str
) -> tuple[pd.DataFrame, Timeline, str]:
    """About `most` checkpoints of each concept, with the extremes of its values, and a subtitle if some were left out.

    Args:
        table: Tidied rows.
        line: The timeline of all checkpoints; it stays as it is, and `line.among(rows)` is that of a concept's rows.
        most: Maximum number of checkpoints, apart from the ends of stages.
        metrics: Metrics whose mean decides; all by default.
    """
    if len(line.moments) <= most:
        return table, line, ""
    dated = table[table["step"].notna()]
    own = dated[dated["value"].notna() & dated["control"].eq("")]
    own = own[own["metric"].isin(metrics)] if metrics else own[own["metric"].ne("best_site")]
    series = own.groupby(["concept", "stage", "step"], sort=False)["value"].mean().reset_index()
    # Rows that were selected from a run are thinned already.
    room = most + 2 * len(line.stages)
    kept = [line.thin(one, most if len(one) > room else room) for _, one in series.groupby("concept", sort=False)]
    shown = pd.concat(kept)[["concept", "stage", "step"]] if kept else series[["concept", "stage", "step"]]
    few = table.merge(shown.assign(shown=True), on=["concept", "stage", "step"], how="left")
    few = few[few["shown"].notna() | few["step"].isna()].drop(columns="shown")
    counts = shown.groupby("concept").size()
    count = int(counts.max()) if len(counts) else 0
    note = f"{count} of {len(line.moments)} checkpoints drawn, with the extremes" if count < len(line.moments) else ""
    return few, line, note


def _scale(line: Timeline) -> alt.Scale:
    if not line.stages:
        return alt.Scale(domain=[0, 1], nice=False, zero=False)
    domain = [float(line.moments["age_low"].min()), float(line.moments["age_high"].max())]
    return alt.Scale(domain=domain, nice=False, zero=False)


def _axis(line: Timeline, ticks: int, brief: bool, name: str, *, tokens: bool = True) -> alt.Axis:
    """Ticks at checkpoints, labelled with their steps and stages instead of their ages."""
    checkpoints = line.ticks(ticks)
    with_tokens = tokens and bool(checkpoints["tokens"].notna().any())
    labels = {f"{row.age:.4f}": _label(row, line, tokens, with_tokens) for row in checkpoints.itertuples()}
    return alt.Axis(
        values=checkpoints["age"].tolist(),
        labelExpr=f"({json.dumps(labels)})[format(datum.value, '.4f')]" if labels else "''",
        title=_title(line, name, with_tokens, brief),
        labelLineHeight=13,
        labelFlush=False,
        labelOverlap=False,
    )


def _title(line: Timeline, name: str, tokens: bool, brief: bool) -> str:
    below = " · tokens" if tokens else ""
    names = [stage.name for stage in line.stages]
    stage = " · stage" if len(names) > 1 else f" of {names[0]}" if names and names[0] else ""
    if brief:
        return f"{name}{stage}{below}"
    restarts = ", counted anew in each stage" if len(names) > 1 else ""
    log = " (log scale)" if any(span.log for span in line.stages) else ""
    return f"{name}{restarts}{log}{stage}{below}"


def _label(row: Any, line: Timeline, stacked: bool, tokens: bool) -> list[str]:
    """Step, stage and tokens of a tick: one below the other along x, step and stage in one line along y."""
    several = len(line.stages) > 1 and row.stage
    if not stacked:
        return [place_label(row.stage, row.step, line)]
    below = [_shortened(row.stage)] if several else []
    return [
        step_label(row.step),
        *below,
        *([_abbreviated_count(row.tokens)] if tokens and row.tokens == row.tokens else []),
    ]


def place_label(stage: str, step: float, line: Timeline) -> str:
    """A checkpoint in few letters: base 12k; without the stage if the run has only one."""
    return f"{_shortened(stage)} {step_label(step)}" if len(line.stages) > 1 and stage else step_label(step)


def _shortened(stage: str) -> str:
    stage = escape_control(stage)  # a label is part of an expression
    return stage if len(stage) <= _STAGE_LETTERS else stage[: _STAGE_LETTERS - 1] + "…"


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
