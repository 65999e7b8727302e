"""Score of each concept at every layer (up) and checkpoint (right).

Grey cells are not significant after correction over all cells of the concept (family-wise permutation p > .05); their values are in the
tooltip. White cells could not be measured. The frame marks the best layer, chosen by cross-validation on the training groups.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS, Finding, collect_findings
from ontogeny.findings.selection import OWN_ROWS, SCORES_AT_BEST_SITE, metric_condition
from ontogeny.findings.sentences import SCORE_LABELS, format_score
from ontogeny.findings.table import mean_over_seeds, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title, stack_by_metric
from ontogeny.views._heat_map import score_cells
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR, MISSING_COLOUR, SEQUENTIAL_SCHEME

title = "Layers over training"
place = 2
needs = frozenset({"step", "concept", "site", "layer", "metric", "value"})

LEVEL = 0.05
MOST = 80
"""Maximum number of checkpoints; more would be thin cells and large files."""
OF = "+".join(SCORE_METRICS)
PARTS = ("resid", "attn", "mlp", "neuron", "attn_resid", "mlp_resid", "router")
select = rows_with_metrics(*SCORE_METRICS, "p_familywise", "best_site", "cv_score")
where = (
    # Alone, so that DuckDB skips the rows of heads, most of a large run, where none is a best site.
    f"{{headless}} and (metric = 'best_site' or ({SCORES_AT_BEST_SITE} and {{thin:{MOST}:{OF}}}) "
    f"or ({metric_condition(*SCORE_METRICS, 'p_familywise')} and head is null and {OWN_ROWS} and {{probe}} and {{thin:{MOST}:{OF}}}))"
)


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, *SCORE_METRICS)
    panels = []
    for finding in collect_findings(table, line):
        own = line.among(finding.subject.rows)
        if (cells := _cells(finding, own))["value"].notna().any():
            panels.append((finding.metric, _panel(finding, cells, own, fewer)))
    if not panels:
        return blank_chart(title, missing_rows_reason(table[table["metric"].isin(SCORE_METRICS)], "a score at a layer"))
    return with_legend(
        stack_by_metric(panels),
        LegendEntry("not significant", "cell", MISSING_COLOUR),
        LegendEntry("best layer", "frame"),
    )


def _cells(finding: Finding, line: Timeline) -> pd.DataFrame:
    """Score and p of every layer and checkpoint, of the residual stream or else the first part that was read."""
    rows = finding.subject.rows
    rows = rows[rows["method"].eq(finding.method)]
    cells = select_rows(rows, finding.metric)
    part = cells["site"].str.partition(".")[0]
    shown = next((p for p in PARTS if part.eq(p).any()), "")
    cells = mean_over_seeds(line.place(cells[part.eq(shown)]), "site")
    p = select_rows(rows, "p_familywise")[["stage", "step", "site", "value"]].rename(columns={"value": "p"})
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
    tooltip = [alt.Tooltip("name:N", title="concept"), alt.Tooltip("site:N"), alt.Tooltip("stage:N")]
    for column, (digits, name) in {
        "step": (",", "step"),
        "value": (".3f", "value"),
        "p": (".3f", "family-wise p"),
    }.items():
        tooltip.append(alt.Tooltip(f"{column}:Q", format=digits, title=name))
    span = {"x": step_axis(line, ticks=5, brief=True, field="age_low"), "x2": "age_high:Q", "y": y, "y2": "high:Q"}
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.5 if finding.metric != "r2" else 0.0, 1.0], clamp=True)
    legend = alt.Legend(title=SCORE_LABELS[finding.metric], orient="bottom", gradientLength=260)
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    layers = score_cells(cells, columns, span, colour, tooltip) + stage_boundaries(line, height=150, names=False)
    best = cells[cells["site"].eq(finding.site)].head(1)
    if part in PARTS and len(best) and _read_at_end(cells):
        edge = best.assign(age_low=line.moments["age_low"].min(), age_high=line.moments["age_high"].max())
        frame = Chart(inline_rows(edge, "age_low", "age_high", "low", "high")).mark_rect(
            fill="transparent", stroke=INK_COLOUR, strokeWidth=1.2
        )
        layers.append(frame.encode(x="age_low:Q", x2="age_high:Q", y=y, y2="high:Q"))
    without_p = "" if cells["p"].notna().any() else "no p in this table: nothing is grey"
    heading = panel_title(_headline(finding, cells), without_p, fewer)
    height = min(max(18 * len(cells["site"].unique()), 90), 260)
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 55, height=height, title=heading)


def _headline(finding: Finding, cells: pd.DataFrame) -> str:
    """Where it is read at the last checkpoint, or where it was read last."""
    score = f"{finding.site}, {SCORE_LABELS[finding.metric]} {format_score(finding.final.value)}"
    if cells["p"].isna().all():
        return f"{finding.name}: best at {score}"
    if _read_at_end(cells):
        return f"{finding.name}: read at the end, best at {score}"
    read = cells[cells["p"].le(LEVEL) & cells["value"].notna()]
    if read.empty:
        return f"{finding.name}: read at no layer"
    latest = read[read["age"].eq(read["age"].max())]
    row = latest.iloc[int(latest["value"].argmax())]
    at = checkpoint_label(row["stage"], None if row["step"] % 1 else row["step"])
    return f"{finding.name}: read until {at} ({row['site']}), not at the end"


def _read_at_end(cells: pd.DataFrame) -> bool:
    """Whether a layer reads the concept at the last checkpoint; True for all where p is unknown."""
    last = cells[cells["age"].eq(cells["age"].max())]
    return bool(cells["p"].isna().all() or last["p"].le(LEVEL).any())


def _ticks(top: int) -> list[int]:
    every = max(1, round(top / 6))
    return list(range(0, top + 1, every))
