"""Where each concept is readable, and from when: the score at every layer (up) and checkpoint (right).

Grey cells are not distinguishable from chance once all cells of the concept are counted (family-wise permutation p > .05);
their values are in the tooltip. White cells could not be measured. The frame marks the best layer.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings import SCORES, Finding, findings
from ontogeny.findings.sentences import SCORE_NAMES
from ontogeny.findings.table import over_seeds, tidy, wanted
from ontogeny.findings.timeline import Timeline, timeline
from ontogeny.views._axes import stage_rules, step_axis, thinned
from ontogeny.views._pieces import blank, by_metric, heading, inline, reason
from ontogeny.views._theme import ABSENT, INK, MAGNITUDE, SEAMLESS, WIDTH

title = "Layers over training"
place = 2
needs = frozenset({"step", "concept", "site", "layer", "metric", "value"})

LEVEL = 0.05
MOST = 80
"""Checkpoints drawn: more would be slivers, and megabytes."""
PARTS = ("resid", "attn", "mlp", "neuron", "attn_resid", "mlp_resid")


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*SCORES, "p_familywise", "best_site", "cv_score"])]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thinned(tidy(select(records)), timeline(records), MOST)
    drawn = [
        (f.metric, _panel(f, cells, line, fewer))
        for f in findings(table, line)
        if (cells := _cells(f, line))["value"].notna().any()
    ]
    if not drawn:
        return blank(title, reason(table[table["metric"].isin(SCORES)], "a score at a layer"))
    return by_metric(drawn)


def _cells(finding: Finding, line: Timeline) -> pd.DataFrame:
    """Score and p of every layer and checkpoint, of the stream where it was read, else of the first part that was."""
    rows = finding.subject.rows
    rows = rows[rows["method"].eq(finding.method)]
    cells = wanted(rows, finding.metric)
    part = cells["site"].str.partition(".")[0]
    shown = next((p for p in PARTS if part.eq(p).any()), "")
    cells = over_seeds(line.place(cells[part.eq(shown)]), "site")
    p = wanted(rows, "p_familywise")[["stage", "step", "site", "value"]].rename(columns={"value": "p"})
    cells = cells.merge(p.drop_duplicates(["stage", "step", "site"]), on=["stage", "step", "site"], how="left")
    cells["shown"] = cells["value"].where(~cells["p"].gt(LEVEL))
    cells["pale"] = cells["value"].notna() & cells["p"].gt(LEVEL)
    return cells.assign(low=cells["layer"] - 0.5, high=cells["layer"] + 0.5, name=finding.name)


def _panel(finding: Finding, cells: pd.DataFrame, line: Timeline, fewer: str) -> Any:
    part = finding.site.partition(".")[0]
    top = int(cells["layer"].max())
    y = alt.Y(
        "low:Q",
        scale=alt.Scale(domain=[float(cells["low"].min()), top + 0.5], nice=False, zero=False),
        axis=alt.Axis(
            values=_ticks(top), format="d", grid=False, title=f"layer ({cells['site'].iloc[0].partition('.')[0]})"
        ),
    )
    columns = ("name", "site", "stage", "step", "value", "shown", "p", "age_low", "age_high", "low", "high")
    formats = {"step": ",", "value": ".3f", "p": ".3f"}
    told = [alt.Tooltip("name:N", title="concept"), alt.Tooltip("site:N"), alt.Tooltip("stage:N")]
    told += [alt.Tooltip(f"{c}:Q", format=f, title="family-wise p" if c == "p" else c) for c, f in formats.items()]
    span = {"x": step_axis(line, ticks=5, brief=True, field="age_low"), "x2": "age_high:Q", "y": y, "y2": "high:Q"}
    pale = alt.Chart(inline(cells[cells["pale"]], *columns)).mark_rect(color=ABSENT, **SEAMLESS)
    scale = alt.Scale(scheme=MAGNITUDE, domain=[0.5 if finding.metric != "r2" else 0.0, 1.0], clamp=True)
    legend = alt.Legend(
        title=f"{SCORE_NAMES[finding.metric]} (grey: not significant)", orient="bottom", gradientLength=260
    )
    bright = alt.Chart(inline(cells[cells["shown"].notna()], *columns)).mark_rect(**SEAMLESS)
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    bright = bright.encode(**span, color=colour, tooltip=told)
    layers = [pale.encode(**span, tooltip=told), bright, *stage_rules(line, height=150, names=False)]
    best = cells[cells["site"].eq(finding.site)].head(1)
    if part in PARTS and len(best):
        edge = best.assign(age_low=line.moments["age_low"].min(), age_high=line.moments["age_high"].max())
        frame = alt.Chart(inline(edge, "age_low", "age_high", "low", "high")).mark_rect(
            fill="transparent", stroke=INK, strokeWidth=1.2
        )
        layers.append(frame.encode(x="age_low:Q", x2="age_high:Q", y=y, y2="high:Q"))
    marked = "" if cells["p"].notna().any() else "no p in this table: nothing is grey"
    named = heading(finding.name)
    named.subtitle = " · ".join(said for said in (f"best at {finding.site}", marked, fewer) if said)
    height = min(max(18 * len(cells["site"].unique()), 90), 260)
    return alt.layer(*layers).properties(width=WIDTH / 3 - 55, height=height, title=named)


def _ticks(top: int) -> list[int]:
    every = max(1, round(top / 6))
    return list(range(0, top + 1, every))
