"""Stage × stage charts: layout, and names of checkpoints (the stage, with the step if the stage has several)."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import ConceptRecords, coord_column, evenly_spread, records_by_concept, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._chart_parts import blank_chart, missing_rows_reason, resolve_scales
from ontogeny.views._layout import vconcat
from ontogeny.views._legend import LegendEntry, with_legend

_ChartParts = Callable[[ConceptRecords, Timeline], Sequence[Any]]
"""The charts of one concept; None for charts without data."""


def stack_concepts(
    records: pd.DataFrame,
    chosen: pd.DataFrame,
    parts: _ChartParts,
    *,
    title: str,
    what: str,
    legend: Sequence[LegendEntry] = (),
    spacing: int = 30,
) -> Any:
    """The charts of all concepts in `chosen`, one below another, on the timeline of all records; blank if there are none.

    Args:
        legend: Marks that no scale explains.
    """
    table, line = tidy_records(chosen), make_timeline(records)
    charts = [part for subject in records_by_concept(table) for part in parts(subject, line) if part is not None]
    if not charts:
        return blank_chart(title, missing_rows_reason(table, f"{what} (ontogeny compare makes them)"))
    chart = resolve_scales(vconcat(*charts, spacing=spacing), color="independent")
    return with_legend(chart, *legend) if legend else chart


def lowest_pair(cells: pd.DataFrame, what: str) -> str:
    """The two different checkpoints with the lowest value, in words; empty if there are no two."""
    pairs = cells[cells["moment"].ne(cells["other"]) & cells["value"].notna()]
    if pairs.empty:
        return ""
    low = pairs.iloc[int(pairs["value"].argmin())]
    return f"lowest {what}: {format_score(low['value'])}, {low['other']} and {low['moment']}"


def each_stage(cells: pd.DataFrame, order: Sequence[str], unit: str = "") -> str:
    """The value of each checkpoint in words: base: 1.2, dpo: 3.4 nats."""
    values = cells.drop_duplicates("moment").set_index("moment")["value"].dropna()
    said = [f"{name}: " + f"{values[name]:.3g}".replace("-", "−") for name in order if name in values.index]
    return ", ".join(said) + (f" {unit}" if unit and said else "")


def checkpoint_rows(subject: ConceptRecords, line: Timeline, *, most: int) -> tuple[pd.DataFrame, list[str]]:
    """The known rows of a concept with the names of their checkpoints, and at most `most` of these names, early first."""
    rows = with_checkpoint_names(subject.rows[subject.rows["value"].notna() & subject.rows["stage"].ne("")], line)
    return rows, _ordered_checkpoint_names(rows, line, most=most) if len(rows) else []


def with_checkpoint_names(rows: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    """The rows with the names of both checkpoints, `moment` and `other` ('' if there is none)."""
    several = line.moments.groupby("stage")["step"].nunique().gt(1) if len(line.moments) else pd.Series(dtype=bool)

    def name(stage: str, step: Any) -> str:
        step = pd.to_numeric(step, errors="coerce")
        return f"{stage} {step:,.0f}" if several.get(stage, False) and pd.notna(step) and step % 1 == 0 else str(stage)

    others = zip(coord_column(rows, "other_stage"), coord_column(rows, "other_step"), strict=True)
    return rows.assign(
        moment=[name(stage, step) for stage, step in zip(rows["stage"], rows["step"], strict=True)],
        other=[name(stage, step) for stage, step in others],
    )


def _ordered_checkpoint_names(rows: pd.DataFrame, line: Timeline, *, most: int) -> list[str]:
    """At most `most` names of checkpoints, early first: the last of each stage, and others evenly between."""
    at = line.moments
    ages = {(s, t): float(age) for s, t, age in zip(at["stage"], at["step"], at["age"], strict=True)}
    first = rows.drop_duplicates("moment")
    keyed = sorted(
        zip(first["moment"], first["stage"], first["step"], strict=True), key=lambda m: ages.get((m[1], m[2]), 0.0)
    )
    names = [moment for moment, _, _ in keyed]
    ends = set({stage: moment for moment, stage, _ in keyed}.values())
    between = [name for name in names if name not in ends]
    room = max(0, most - len(ends))
    chosen = ends | set(evenly_spread(between, room))
    return evenly_spread([name for name in names if name in chosen], most)
