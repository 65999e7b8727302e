"""Sentences on persona drift: adherence before and after a dialogue, what it is compared with, and what mitigations do to it."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.records import checkpoint_label

DRIFT_ROWS = metric_condition(
    "adherence", "adherence_change", "adoption", "instruction_recall", "degenerate_share", "in_template"
)
"""SQL condition of the rows that the sentences read."""


def drift_sentences(records: pd.DataFrame) -> list[str]:
    """One sentence for each checkpoint and mitigation, over all instructions; the verdict claims no more than the interval."""
    table = pooled_rows(records)
    table = table.assign(mitigated=table["method"].ne("plain"))
    groups = table.groupby(["stage", "moment", "mitigated", "method"], dropna=False)
    return [_sentence(rows) for _, rows in groups]


def pooled_rows(records: pd.DataFrame) -> pd.DataFrame:
    """Rows of drift over all instructions, those of the instruction where there is only one, with `rounds` and the step as columns.

    `moment` is the step, which is missing for a model without one.
    """
    steps = pd.to_numeric(records["step"], errors="coerce").to_numpy() if "step" in records else math.nan
    table = tidy_records(records).assign(moment=steps)
    table = table.assign(rounds=pd.to_numeric(coord_column(table, "rounds"), errors="coerce"))
    drifting = table[table["metric"].eq("adherence")]
    return table[table["concept"].eq("")] if drifting["concept"].eq("").any() else table


def _sentence(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    place = checkpoint_label(first["stage"], first["moment"])
    curve = _curve(rows, "adherence")
    known = curve[curve["value"].notna()]
    if known.empty:
        return f"{place}, {first['method']}: adherence could not be measured: {_note(curve)}"
    start, end = known.iloc[0], known.iloc[-1]
    parts = [
        f"{place}, {first['method']}: adherence {_moment(start)}{f', {_moment(end)}' if len(known) > 1 else ''}",
        *_changes(rows),
        *_compared(rows),
    ]
    if rows["metric"].eq("in_template").any() and rows[rows["metric"].eq("in_template")]["value"].eq(0).any():
        parts.append("in the plain template")
    return "; ".join(parts)


def _changes(rows: pd.DataFrame) -> Iterator[str]:
    for row in _dicts(rows[rows["metric"].eq("adherence_change") & rows["control"].eq("")]):
        if pd.isna(row["value"]):
            yield f"no change is known: {row['note']}"
            continue
        if pd.isna(row["low"]) or pd.isna(row["high"]):
            yield f"change {_interval(row)}, without an interval"
            continue
        verdict = "it drifts" if row["high"] < 0 else "it grows" if row["low"] > 0 else "no drift beyond the interval"
        yield f"change {_interval(row)}: {verdict}"


def _compared(rows: pd.DataFrame) -> Iterator[str]:
    for metric, control, words in (
        ("adherence", "no_system", "without a system prompt"),
        ("adherence", "one_turn", "with the same words in one turn"),
        ("instruction_recall", "", "recall at the end"),
        ("adoption", "", "adoption of the partner's instruction"),
        ("adoption", "stranger", "of instructions of neither"),
        ("degenerate_share", "", "degenerate"),
    ):
        curve = _curve(rows, metric, control)
        known = curve[curve["value"].notna()]
        if len(known):
            yield f"{words} {format_score(known.iloc[-1]['value'])}"


def _curve(rows: pd.DataFrame, metric: str, control: str = "") -> pd.DataFrame:
    return rows[rows["metric"].eq(metric) & rows["control"].eq(control)].sort_values("rounds")


def _moment(row: Any) -> str:
    """A value with the rounds before it."""
    rounds = int(row["rounds"])
    when = f"after {rounds} round{'s' * (rounds != 1)}" if rounds else "at the start"
    return f"{_interval(row)} {when}"


def _interval(row: Any) -> str:
    ends = "" if pd.isna(row["low"]) else f" [{format_score(row['low'])}, {format_score(row['high'])}]"
    return f"{format_score(row['value'])}{ends}"


def _note(rows: pd.DataFrame) -> str:
    notes = [note for note in dict.fromkeys(rows["note"]) if note]
    return notes[0] if notes else "no answer was generated"


def _dicts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
