"""Select from the table of records: one column format for rows from DuckDB, Parquet or memory, and rows by concept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ontogeny.findings.timeline import numeric_steps
from ontogeny.records import RECORD_COLUMNS

_T = TypeVar("_T")

_NUMBER_COLUMNS = tuple(name for name, kind in RECORD_COLUMNS.items() if kind in ("BIGINT", "INTEGER", "DOUBLE"))
_TEXT_COLUMNS = tuple(name for name, kind in RECORD_COLUMNS.items() if kind == "VARCHAR")


def tidy_records(records: pd.DataFrame) -> pd.DataFrame:
    """The table with all columns: numbers as float64 with NaN, texts as str with '' for null, coords as dicts."""
    numbers = {
        name: pd.to_numeric(records[name], errors="coerce").astype("float64") if name in records else np.nan
        for name in (*_NUMBER_COLUMNS, *(("order",) if "order" in records else ()))
    }
    if {"step", "stage"} <= set(records.columns):
        numbers["step"] = numeric_steps(records)
    texts = {name: _text(records[name]) if name in records else "" for name in _TEXT_COLUMNS}
    coords = [c if isinstance(c, dict) else {} for c in records["coords"]] if "coords" in records else None
    table = pd.DataFrame({**numbers, **texts}, index=records.index)
    table["coords"] = pd.Series(coords or [{}] * len(table), index=table.index, dtype=object)
    return table.reset_index(drop=True)


def _text(column: pd.Series) -> pd.Series:
    # Objects lie in one block: of thousands of short selections, those of columns of strings take a quarter longer.
    if isinstance(column.dtype, pd.StringDtype):
        return pd.Series(column.to_numpy(dtype=object, na_value=""), index=column.index, dtype=object)
    return column.astype(object).where(column.notna(), "").map(str).astype(object)


def coord_column(rows: pd.DataFrame, key: str) -> pd.Series:
    """One entry of `coords` as a column of texts; '' if a row lacks it."""
    return pd.Series([str(c.get(key, "")) for c in rows["coords"]], index=rows.index, dtype=object)


def has_coord(records: pd.DataFrame, key: str) -> pd.Series:
    """Mask of the rows with an entry of `coords`, tidied or not."""
    return pd.Series([isinstance(c, dict) and key in c for c in records["coords"]], index=records.index, dtype=bool)


def select_rows(table: pd.DataFrame, *metrics: str, control: str | None = "", train: bool = False) -> pd.DataFrame:
    """Rows of some metrics: the measurement itself (control ''), one floor, or both (None); test rows unless `train`."""
    keep = table["metric"].isin(metrics) & (table["split"].eq("train") if train else table["split"].ne("train"))
    return table[keep] if control is None else table[keep & table["control"].eq(control)]


def best_site_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows `best_site`: a concept's best site and its method, chosen on the training groups."""
    return rows[rows["metric"].eq("best_site")]


def preferred_site(concept_rows: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The concept's best site if `rows` have it, else their deepest site."""
    sites = set(rows["site"])
    return next((site for site in best_site_rows(concept_rows)["site"] if site in sites), deepest_site(rows))


def deepest_site(rows: pd.DataFrame) -> str:
    """The last site of the last layer."""
    deepest = rows[rows["layer"].eq(rows["layer"].max())] if rows["layer"].notna().any() else rows
    return str(deepest["site"].iloc[-1])


def evenly_spread(values: Sequence[_T], most: int) -> list[_T]:
    """At most `most` values, evenly spread, both ends kept."""
    if len(values) <= most:
        return list(values)
    if most < 2:
        return list(values[len(values) - most :])
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def mean_over_seeds(cells: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """One row per cell: the mean over measurement seeds, with the envelope of their intervals."""
    by = ["stage", "step", *keys]
    if cells.empty or not cells.duplicated(by).any():
        return cells
    rules = {name: "first" for name in cells.columns if name not in by} | {"value": "mean", "low": "min", "high": "max"}
    return cells.groupby(by, sort=False, dropna=False).agg(rules).reset_index()


@dataclass(frozen=True)
class ConceptRecords:
    """One concept in one lineage and training seed, with all its rows."""

    name: str
    """The concept; with lineage and seed if the table holds several."""
    concept: str
    lineage: str
    rows: pd.DataFrame


def records_by_concept(table: pd.DataFrame) -> Iterator[ConceptRecords]:
    """The concepts of a table in their order of appearance, one for each lineage and training seed.

    Rows without lineage or seed (surface baselines) belong to all of them.
    """
    named = table[table["concept"].ne("")]
    lineages = _known(named["lineage"].replace("", np.nan))
    seeds = sorted(_known(named["train_seed"]))
    for concept in named["concept"].unique():
        own = named[named["concept"].eq(concept)]
        for lineage in lineages or [""]:
            of_lineage = own[own["lineage"].isin([lineage, ""])]
            for seed in seeds or [np.nan]:
                rows = of_lineage[of_lineage["train_seed"].eq(seed) | of_lineage["train_seed"].isna()]
                if rows["step"].notna().any() or (len(lineages) < 2 and len(seeds) < 2 and len(rows)):
                    extra = [lineage] * (len(lineages) > 1) + [f"seed {seed:.0f}"] * (len(seeds) > 1)
                    yield ConceptRecords(" · ".join([concept, *extra]), concept, lineage, rows)


def _known(column: pd.Series) -> list[Any]:
    return list(column.dropna().unique())
