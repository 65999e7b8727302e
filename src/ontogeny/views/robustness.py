"""Robustness of a reading: how often a probe reads a held-out text and the same text perturbed differently, over training.

Left: the share of pairs read differently at each concept's best site, with its 95 % interval. Right: the accuracy lost on the perturbed
texts. A reading that is robust is near 0 in both; one that reads nothing can be near 0, too, so look at its score first.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import best_sites, over_seeds, subjects, tidy, wanted
from ontogeny.findings.timeline import Timeline, timeline
from ontogeny.views._axes import stage_rules, step_axis, thinned
from ontogeny.views._pieces import band_of, blank, header, inline, named_colour, named_dash, reason
from ontogeny.views._theme import WIDTH

title = "Robustness of a reading"
place = 9
needs = frozenset({"step", "concept", "site", "method", "metric", "value", "low", "high"})

METRICS = {"flip_rate": "pairs read differently (0–1)", "perturbed_drop": "accuracy lost (−1 to 1)"}
MOST = 60


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*METRICS, "best_site"])]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thinned(tidy(select(records)), timeline(records), MOST)
    curves = [table.head(0)]
    for subject in subjects(table):
        best = best_sites(subject.rows)
        rows = wanted(subject.rows, *METRICS)
        rows = rows[rows["value"].notna() & rows["site"].isin(best["site"]) & rows["method"].isin(best["method"])]
        curves.append(over_seeds(line.place(rows), "metric").assign(name=subject.name))
    drawn = pd.concat(curves)
    if drawn.empty:
        return blank(title, reason(table[table["metric"].isin(METRICS)], "a flip_rate (concepts of twins have one)"))
    names = list(drawn["name"].unique())
    panels = [_panel(drawn[drawn["metric"].eq(metric)], said, names, line) for metric, said in METRICS.items()]
    return alt.hconcat(*panels, spacing=30).properties(title=header(title, fewer))


def _panel(rows: pd.DataFrame, said: str, names: list[str], line: Timeline) -> Any:
    base = alt.Chart(inline(rows, "name", "site", "n", "age", "stage", "step", "value", "low", "high"))
    base = base.encode(x=step_axis(line, ticks=6), color=named_colour(names))
    y = {"title": said, "axis": alt.Axis(format=".2f", tickCount=6)}
    told = ["name:N", "site:N", "stage:N", alt.Tooltip("step:Q", format=","), alt.Tooltip("n:Q", title="pairs")]
    told += [alt.Tooltip(f"{c}:Q", format=".3f") for c in ("value", "low", "high")]
    band = band_of(base, rows, opacity=0.18).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    curve = base.mark_line(strokeWidth=2, point={"size": 14}).encode(
        y=alt.Y("value:Q", **y), strokeDash=named_dash(names), tooltip=told
    )
    layers = [*stage_rules(line, height=200), band, curve]
    return alt.layer(*layers).properties(width=WIDTH / 2 - 90, height=200)
