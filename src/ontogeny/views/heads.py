"""Score of every attention head, by layer, at the last checkpoint or at one that is named.

Grey heads are not significant after correction over all cells of the concept (family-wise permutation p > .05). The frame marks the head
with the best cross-validated score on the training groups; its number is its score on the test groups.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS
from ontogeny.findings.selection import OWN_ROWS, metric_condition
from ontogeny.findings.sentences import SCORE_LABELS, format_score
from ontogeny.findings.table import ConceptRecords, mean_over_seeds, records_by_concept, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    stack_by_metric,
)
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import INK_COLOUR, MISSING_COLOUR, SEQUENTIAL_SCHEME

title = "Heads"
place = 5
needs = frozenset({"step", "concept", "site", "layer", "head", "metric", "value"})

LEVEL = 0.05
CHOSEN_BY = "cv_score"
where = (
    f"{metric_condition(*SCORE_METRICS, 'p_familywise', CHOSEN_BY)} and head is not null and {OWN_ROWS} "
    "and {probe} and {last}"
)


def select(records: pd.DataFrame) -> pd.DataFrame:
    metrics = [*SCORE_METRICS, "p_familywise", CHOSEN_BY]
    return records[records["metric"].isin(metrics) & records["head"].notna()]


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    measured = [(s, cells) for s in records_by_concept(table) if (cells := head_scores(s, line))["value"].notna().any()]
    if not measured:
        missing = table[table["metric"].ne(CHOSEN_BY)]
        return blank_chart(title, missing_rows_reason(missing, "a score at a head"))
    panels = [(str(cells["metric"].iloc[0]), _panel(s.name, cells)) for s, cells in measured]
    return with_legend(
        stack_by_metric(panels),
        LegendEntry("not significant", "cell", MISSING_COLOUR),
        LegendEntry("best head by cross-validation on the training groups", "frame"),
    )


def tabulate(records: pd.DataFrame) -> pd.DataFrame:
    """All heads, the best ones by cross-validation first."""
    table, line = tidy_records(select(records)), make_timeline(records)
    parts = [head_scores(subject, line) for subject in records_by_concept(table)]
    parts = [cells.sort_values(["chosen_by", "value"], ascending=False) for cells in parts if len(cells)]
    columns = {
        "name": "concept",
        "site": "head",
        "chosen_by": "cross-validated score",
        "value": "score on test groups",
        "low": "95 % from",
        "high": "to",
        "p": "family-wise p",
    }
    rows = pd.concat(parts) if parts else pd.DataFrame(columns=list(columns))
    return rows[list(columns)].rename(columns=columns)


def head_scores(subject: ConceptRecords, line: Timeline) -> pd.DataFrame:
    """The heads at the last checkpoint, for one metric and one probe.

    Returns:
        A row for each head, with the columns of a record, the family-wise `p` and the cross-validated score `chosen_by`.
    """
    scored = line.last(select_rows(subject.rows, *SCORE_METRICS))
    for column, order in (("metric", SCORE_METRICS), ("method", ("logistic", "ridge", "mass_mean"))):
        present = list(scored[column].unique())
        if present:
            scored = scored[scored[column].eq(next((name for name in order if name in present), present[0]))]
    p = line.last(select_rows(subject.rows, "p_familywise"))
    inner = line.last(select_rows(subject.rows, CHOSEN_BY, train=True))
    cells = mean_over_seeds(scored, "site")
    for rows, name in ((p, "p"), (inner, "chosen_by")):
        own = rows[rows["method"].isin(scored["method"])].drop_duplicates("site")[["site", "value"]]
        cells = cells.merge(own.rename(columns={"value": name}), on="site", how="left")
    return cells.assign(name=subject.name)


def best_head(cells: pd.DataFrame) -> pd.DataFrame:
    """The row of the best head by cross-validation on the training groups; no row without such scores."""
    known = cells[cells["chosen_by"].notna() & cells["value"].notna()]
    return known.loc[[known["chosen_by"].idxmax()]] if len(known) else known


def _panel(name: str, cells: pd.DataFrame) -> Any:
    wide, high = int(cells["head"].max()) + 1, int(cells["layer"].max())
    side = max(5, min(34, 240 / max(wide, high)))
    columns = ("name", "site", "layer", "head", "step", "value", "low", "high", "p")
    base = Chart(inline_rows(cells, *columns)).encode(
        x=alt.X("head:O", title="head (0 first)", axis=alt.Axis(labelAngle=0, labelOverlap=True, labelSeparation=6)),
        y=alt.Y("layer:O", title="layer", sort="descending", axis=alt.Axis(labelOverlap=True)),
        tooltip=["name:N", "site:N", *number_tooltips("value", "low", "high", "p")],
    )
    metric = cells["metric"].iloc[0]
    lowest = 0.0 if metric == "r2" else 0.5
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[lowest, 1.0], clamp=True)
    legend = alt.Legend(title=SCORE_LABELS[metric], orient="bottom", gradientLength=260)
    significant = f"!isValid(datum.p) || datum.p <= {LEVEL}"
    edges = {"stroke": "white", "strokeWidth": 1 if side > 12 else 0.3}
    known = base.transform_filter("isValid(datum.value)")
    squares = (
        known.transform_filter(significant)
        .mark_rect(**edges)
        .encode(color=alt.Color("value:Q", scale=scale, legend=legend))
    )
    best = best_head(cells)
    # Marks of their own, as the symbol of the legend, so that a dark theme changes both alike.
    layers = [known.transform_filter(f"!({significant})").mark_rect(color=MISSING_COLOUR, **edges), squares]
    unread = cells["p"].notna().any() and not cells["p"].le(LEVEL).any()
    if len(best) and not unread:
        best = best.assign(label=format_score(float(best["value"].iloc[0])))
        frame = Chart(inline_rows(best, *columns, "label")).encode(x="head:O", y=alt.Y("layer:O", sort="descending"))
        layers.append(frame.mark_rect(fill="transparent", stroke=INK_COLOUR, strokeWidth=1.6))
        if side >= 22:
            number = frame.mark_text(fontSize=10).encode(text="label:N")
            if (
                not float(best["p"].iloc[0]) > LEVEL
            ):  # the cell has a colour of its own in every theme, and so has its number
                ink = alt.condition(f"datum.value > {(1 + lowest) / 2}", alt.value("white"), alt.value(INK_COLOUR))
                layers.append(number.encode(color=ink))
            else:
                layers.append(number.encode(color=alt.value(INK_COLOUR)))
    heading = panel_title(f"{name}: {_headline(cells, best)}", _at(cells))
    return overlay(*layers).properties(width=side * wide, height=side * high, title=heading)


def _headline(cells: pd.DataFrame, best: pd.DataFrame) -> str:
    if cells["p"].notna().any() and not cells["p"].le(LEVEL).any():
        return "no head reads it"
    if best.empty:
        return f"{len(cells)} heads"
    name = str(best["site"].iloc[0]).removeprefix("head.")
    score = f"{name} ({format_score(float(best['value'].iloc[0]))})"
    counted = cells["p"].notna().any()
    many = f"{int(cells['p'].le(LEVEL).sum()):,} of {len(cells):,} heads read it, " if counted else ""
    return f"{many}best {score}"


def _at(cells: pd.DataFrame) -> str:
    step = float(cells["step"].iloc[0])
    return f"at {checkpoint_label(cells['stage'].iloc[0], None if step % 1 else step)}"
