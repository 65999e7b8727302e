"""Where each stage stores facts: the effect of patching a layer (up) at a kind of token (right); 0 no effect, 1 the other answer.

Below: what a later stage changed, and the effect of one stage's states inside another, relative to its corrupt states. Grey cells are
fixed by construction: no block reads them, or they are the only difference. The rows of points show which share of a stage's places
(effect of at least .2) was there before and works with the other stage's states (kept), works with less than half of the effect
(adapted), is new, or was lost.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import ConceptRecords, coord_column, evenly_spread, mean_over_seeds, select_rows
from ontogeny.findings.timeline import Timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import facet_rows_by_name, inline_rows, number_tooltips, panel_title
from ontogeny.views._layout import Chart, concat, hconcat, overlay
from ontogeny.views._legend import LegendEntry
from ontogeny.views._stage_grid import stack_concepts, with_checkpoint_names
from ontogeny.views._theme import (
    CATEGORY_COLOURS,
    CHART_WIDTH,
    DIVERGING_SCHEME,
    MISSING_COLOUR,
    MUTED_COLOUR,
    SEQUENTIAL_SCHEME,
)

title = "Knowledge: where facts are stored, and what later stages keep"
place = 8
needs = frozenset({"stage", "concept", "layer", "position", "metric", "value", "coords"})

MAPS, DIFFERENCE, CROSSED = "patch_effect", "patch_effect_difference", "cross_effect"
FATES = {
    "knowledge_transfer": "effect of the other's states ÷ own (0–1)",
    "knowledge_kept": "kept (0–1)",
    "knowledge_adapted": "adapted (0–1)",
    "knowledge_new": "new (0–1)",
    "knowledge_lost": "lost (0–1)",
}
WORDS = {"subject_last": "end of subject", "last": "last token"}
MOST = 8
"""Maximum number of maps of one kind."""
COUPLE = "states of → stage"
_KEY = (
    LegendEntry("fixed by construction", "cell", MISSING_COLOUR),
    LegendEntry("95 % interval", "line", MUTED_COLOUR),
)
select = rows_with_metrics(MAPS, DIFFERENCE, CROSSED, *FATES)


def draw(records: pd.DataFrame) -> Any:
    what = "patch_effect"
    return stack_concepts(records, select(records), _parts, title=title, what=what, legend=_KEY, spacing=28)


def _parts(subject: ConceptRecords, line: Timeline) -> list[Any]:
    """The charts of a concept, one after another for each way in which its pairs were mined."""
    rows = subject.rows[subject.rows["value"].notna()]
    pairing = coord_column(rows, "pairing")
    kinds = list(dict.fromkeys(pairing))
    names = {kind: subject.name if len(kinds) == 1 else f"{subject.name}, {kind.replace('_', ' ')}" for kind in kinds}
    return [part for kind in kinds for part in _subject(names[kind], _with_labels(rows[pairing.eq(kind)], line))]


def _subject(name: str, rows: pd.DataFrame) -> list[Any]:
    own, crossed = select_rows(rows, MAPS), select_rows(rows, CROSSED)
    crossed = crossed.assign(panel=lambda r: r["other"] + "'s states in " + r["moment"])
    own = own[own["method"].eq("patch")].assign(panel=lambda r: r["moment"])
    changed = select_rows(rows, DIFFERENCE).assign(panel=lambda r: r["moment"] + " less " + r["other"])
    return [
        _maps(own, f"{name}: effect of patching in each stage", SEQUENTIAL_SCHEME, (0, 1)),
        _maps(changed, f"{name}: what changed between stages", DIVERGING_SCHEME, (-1, 1)),
        _maps(crossed, f"{name}: one stage's states inside another (clean less corrupt)", SEQUENTIAL_SCHEME, (0, 1)),
        _fates(rows[rows["metric"].isin(FATES)], f"{name}: what later stages keep"),
    ]


def _with_labels(rows: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    return with_checkpoint_names(rows, line).assign(
        fixed=rows["note"].str.startswith("so by construction"),
        at=pd.to_numeric(coord_column(rows, "place"), errors="coerce"),
        token=rows["position"].replace(WORDS),
    )


def _maps(cells: pd.DataFrame, text: str, scheme: str, domain: tuple[int, int]) -> Any:
    names = list(dict.fromkeys(cells["panel"]))
    if not names:
        return None
    shown = evenly_spread(names, MOST)
    cells = mean_over_seeds(cells[cells["panel"].isin(shown)], "panel", "layer", "token")
    order = list(cells.sort_values("at")["token"].drop_duplicates())
    columns = min(len(shown), 4)
    width = min(max(34 * len(order), 90), CHART_WIDTH / columns - 90)
    charts = [_map(cells[cells["panel"].eq(name)], name, order, scheme, domain, width) for name in shown]
    heading = panel_title(text, _largest(cells[~cells["fixed"]]), *_omitted(shown, names, "maps"))
    grid = concat(*charts, columns=columns, spacing=18).resolve_scale(color="shared")
    return grid.properties(title=heading)


def _largest(cells: pd.DataFrame) -> str:
    """The cell with the largest value, in words."""
    known = cells[cells["value"].notna()]
    if known.empty:
        return ""
    top = known.iloc[int(known["value"].abs().argmax())]
    value = f"{top['value']:.2f}".replace("-", "−")
    return f"largest: {value} at resid.{top['layer']:.0f}, {top['token']}, {top['panel']}"


def _map(
    cells: pd.DataFrame, name: str, order: Sequence[str], scheme: str, domain: tuple[int, int], width: float
) -> Any:
    columns = ("panel", "token", "layer", "value", "low", "high")
    legend = alt.Legend(title=f"effect ({'−' if domain[0] else ''}{abs(domain[0])} to {domain[1]})", gradientLength=110)
    colour = alt.Color(
        "value:Q",
        scale=alt.Scale(scheme=scheme, domain=list(domain), clamp=True, reverse=domain[0] != 0),
        legend=legend,
    )
    axes = {
        "x": alt.X("token:N", sort=list(order), title="kind of token", axis=alt.Axis(labelAngle=-40)),
        "y": alt.Y("layer:O", sort="descending", title="layer (resid)", axis=alt.Axis(format="d")),
    }
    tooltip = [alt.Tooltip("token:N"), alt.Tooltip("layer:O"), *number_tooltips(*columns[3:])]
    bright = Chart(inline_rows(cells[~cells["fixed"]], *columns)).mark_rect()
    pale = Chart(inline_rows(cells[cells["fixed"]], *columns)).mark_rect(color=MISSING_COLOUR)
    layers = overlay(pale.encode(**axes, tooltip=tooltip), bright.encode(**axes, color=colour, tooltip=tooltip))
    height = min(max(16 * cells["layer"].nunique(), 70), 320)
    return layers.properties(width=width, height=height, title=panel_title(name))


def _omitted(shown: Sequence[str], names: Sequence[str], what: str) -> list[str]:
    return [f"{len(shown)} of {len(names)} {what} drawn"] if len(shown) < len(names) else []


def _fates(rows: pd.DataFrame, text: str) -> Any:
    if rows.empty:
        return None
    rows = rows.assign(couple=rows["other"] + " → " + rows["moment"])
    every = list(dict.fromkeys(rows["couple"]))
    couples = every[: 2 * MOST]
    rows = rows[rows["couple"].isin(couples)]
    metrics = [metric for metric in FATES if rows["metric"].eq(metric).any()]
    charts = []
    for i, metric in enumerate(metrics):
        own = rows[rows["metric"].eq(metric)]
        top = max(1.05, float(own[["value", "high"]].max().max())) if metric == "knowledge_transfer" else 1.0
        low = min(0.0, float(own[["value", "low"]].min().min()))
        scale = alt.Scale(domain=[low, top], nice=False, clamp=True)
        columns = ("couple", "value", "low", "high", "note")
        base = Chart(inline_rows(own, *columns)).encode(y=facet_rows_by_name("couple", couples, COUPLE, first=i == 0))
        tooltip = ["couple:N", *number_tooltips(*columns[1:4]), "note:N"]
        ends = base.mark_rule(color=MUTED_COLOUR, strokeWidth=2).encode(
            x=alt.X("low:Q", title=FATES[metric], scale=scale), x2="high:Q"
        )
        points = base.mark_circle(size=45, opacity=1, color=CATEGORY_COLOURS[0]).encode(
            x=alt.X("value:Q", title=FATES[metric], scale=scale), tooltip=tooltip
        )
        width = 200 if metric == "knowledge_transfer" else 105
        charts.append(overlay(ends, points).properties(width=width, height=max(24 * len(couples), 48)))
    heading = panel_title(text, *_omitted(couples, every, "couples"))
    return hconcat(*charts, spacing=14).properties(title=heading)
