"""Emergence step of each concept with its 95 % interval, one mark per run or training seed.

Marks of one concept are below each other, coloured by run; a run without emergence has no mark. Below: the curves, each at the best
site of its run. If all intervals overlap, no difference between the runs is shown.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import Finding
from ontogeny.findings.seed_agreement import seed_agreement_sentence, seed_agreements
from ontogeny.findings.selection import FINDING_ROWS
from ontogeny.findings.timeline import Timeline
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    facet_header,
    inline_rows,
    number_tooltips,
    panel_title,
    small_multiples,
)
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._scores import (
    findings_on_timeline,
    place_event,
    score_axis_minimum,
    score_axis_title,
    score_rows,
)
from ontogeny.views._theme import CHART_WIDTH

title = "Runs side by side"
place = 9
together = True
needs = frozenset({"step", "concept", "site", "metric", "control", "value", "low", "high", "lineage", "train_seed"})
select, where = score_rows, FINDING_ROWS


def draw(records: pd.DataFrame) -> Any:
    findings, line, reason = findings_on_timeline(records)
    if reason:
        return blank_chart(title, reason)
    names = list(dict.fromkeys(map(_run, findings)))
    if len(names) < 2:
        return blank_chart(title, "One run in this table, so nothing to compare; several: ontogeny show RUN RUN seeds.")
    concepts = list(dict.fromkeys(f.subject.concept for f in findings))
    curves = small_multiples(
        [_curves(c, [f for f in findings if f.subject.concept == c], line, names) for c in concepts]
    )
    return vconcat(_events(findings, line, names, concepts), curves, spacing=36)


def _run(finding: Finding) -> str:
    """Name of the run of a finding: its lineage, and its seed if known."""
    seeds = finding.subject.rows["train_seed"].dropna()
    lineage = finding.subject.lineage or "this run"
    return f"{lineage}, seed {seeds.iloc[0]:.0f}" if len(seeds) else lineage


def _events(findings: list[Finding], line: Timeline, names: list[str], concepts: list[str]) -> Any:
    rows = [
        {"concept": finding.subject.concept, "name": _run(finding), **event}
        for finding in findings
        if (event := place_event(finding.emergence, line))
    ]
    events = pd.DataFrame(rows, columns=["concept", "name", "label", "age", "low", "high"])
    base = Chart(inline_rows(events)).encode(
        y=alt.Y("concept:N", sort=concepts, title="concept", scale=alt.Scale(domain=concepts)),
        yOffset=alt.YOffset("name:N", scale=alt.Scale(domain=names)),
        color=colour_by_name(names, title="run"),
    )
    spans = base.mark_rule(strokeWidth=2.2).encode(x=step_axis(line, field="low"), x2="high:Q")
    points = base.mark_point(filled=True, size=90, shape="diamond", opacity=1).encode(
        x=step_axis(line), tooltip=["concept:N", "name:N", alt.Tooltip("label:N", title="emerges at step")]
    )
    height = max(26, 13 * len(names)) * len(concepts)
    sentences = [f"{agreement.concept} {seed_agreement_sentence(agreement)}" for agreement in seed_agreements(findings)]
    heading = facet_header("Emergence step, 95 % interval", *sentences)
    return overlay(*stage_boundaries(line, height=height), spans, points).properties(
        width=CHART_WIDTH - 160, height=height, title=heading
    )


def _curves(concept: str, own: list[Finding], line: Timeline, names: list[str]) -> Any:
    rows = pd.concat([f.curve.assign(name=_run(f)) for f in own])
    scale = alt.Scale(domain=[score_axis_minimum(rows["value"]), 1], clamp=True, nice=False)
    base = Chart(inline_rows(rows, "name", "site", "stage", "step", "age", "value")).encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y("value:Q", title=score_axis_title(f.metric for f in own), scale=scale),
        color=colour_by_name(names, title="run"),
        tooltip=["name:N", "site:N", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value")],
    )
    lines = base.mark_line(strokeWidth=1.6, point={"size": 14})
    return overlay(lines).properties(width=CHART_WIDTH / 3 - 55, height=150, title=panel_title(concept))
