"""Is it the same in every run? The emergence step of each concept with its 95 % interval, one mark a run or training seed.

Marks of one concept stand below each other, coloured by run; a run in which the emergence is censored has no mark. Below, the curves
they come from, each at the best site of its own run. Where all intervals overlap no difference between the runs is shown.
"""

import math
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import Finding
from ontogeny.findings.seed_agreement import seed_agreement_sentence, seed_agreements
from ontogeny.findings.sentences import format_step_interval
from ontogeny.findings.timeline import Timeline
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    facet_header,
    inline_rows,
    panel_title,
    small_multiples,
)
from ontogeny.views._scores import findings_on_timeline, score_axis_minimum, score_axis_title, score_rows
from ontogeny.views._theme import CHART_WIDTH

title = "Runs side by side"
place = 9
needs = frozenset({"step", "concept", "site", "metric", "control", "value", "low", "high", "lineage", "train_seed"})


def select(records: pd.DataFrame) -> pd.DataFrame:
    return score_rows(records)


def draw(records: pd.DataFrame) -> Any:
    found, line, nothing = findings_on_timeline(records)
    if nothing:
        return blank_chart(title, nothing)
    names = list(dict.fromkeys(map(_run, found)))
    if len(names) < 2:
        return blank_chart(title, "One run in this table, so nothing to compare; several: ontogeny show RUN RUN seeds.")
    concepts = list(dict.fromkeys(f.subject.concept for f in found))
    curves = small_multiples([_curves(c, [f for f in found if f.subject.concept == c], line, names) for c in concepts])
    return alt.vconcat(_events(found, line, names, concepts), curves, spacing=36)


def _run(finding: Finding) -> str:
    """What tells the run of a finding from the others: its lineage, and its seed where that is known."""
    seeds = finding.subject.rows["train_seed"].dropna()
    named = finding.subject.lineage or "this run"
    return f"{named}, seed {seeds.iloc[0]:.0f}" if len(seeds) else named


def _events(found: list[Finding], line: Timeline, names: list[str], concepts: list[str]) -> Any:
    rows = []
    for finding in found:
        event = finding.emergence
        if event is None or not event.known:
            continue
        age, low, high = (line.age(event.stage, step) for step in (event.step, event.low, event.high))
        low, high = (age if math.isnan(low) else low), (age if math.isnan(high) else high)
        told = {"concept": finding.subject.concept, "name": _run(finding), "said": format_step_interval(event)}
        rows.append(told | {"age": age, "low": low, "high": high})
    events = pd.DataFrame(rows, columns=["concept", "name", "said", "age", "low", "high"])
    base = alt.Chart(inline_rows(events)).encode(
        y=alt.Y("concept:N", sort=concepts, title="concept", scale=alt.Scale(domain=concepts)),
        yOffset=alt.YOffset("name:N", scale=alt.Scale(domain=names)),
        color=colour_by_name(names, title="run"),
    )
    spans = base.mark_rule(strokeWidth=2.2).encode(x=step_axis(line, field="low"), x2="high:Q")
    points = base.mark_point(filled=True, size=90, shape="diamond", opacity=1).encode(
        x=step_axis(line), tooltip=["concept:N", "name:N", alt.Tooltip("said:N", title="emerges at step")]
    )
    height = max(26, 13 * len(names)) * len(concepts)
    said = [f"{agreement.concept} {seed_agreement_sentence(agreement)}" for agreement in seed_agreements(found)]
    named = facet_header("Emergence step, 95 % interval", *said)
    return alt.layer(*stage_boundaries(line, height=height), spans, points).properties(
        width=CHART_WIDTH - 160, height=height, title=named
    )


def _curves(concept: str, own: list[Finding], line: Timeline, names: list[str]) -> Any:
    rows = pd.concat([f.curve.assign(name=_run(f)) for f in own])
    scale = alt.Scale(domain=[score_axis_minimum(rows["value"]), 1], clamp=True, nice=False)
    base = alt.Chart(inline_rows(rows, "name", "site", "stage", "step", "age", "value")).encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y("value:Q", title=score_axis_title(f.metric for f in own), scale=scale),
        color=colour_by_name(names, title="run"),
        tooltip=[
            "name:N",
            "site:N",
            "stage:N",
            alt.Tooltip("step:Q", format=","),
            alt.Tooltip("value:Q", format=".3f"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.6, point={"size": 14})
    return alt.layer(lines).properties(width=CHART_WIDTH / 3 - 55, height=150, title=panel_title(concept))
