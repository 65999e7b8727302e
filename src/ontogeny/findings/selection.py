"""Rows of a run that a view or a finding needs, read by SQL: the run of a large model has more rows than fit in memory.

A condition is SQL over the columns of a record. Names in braces stand for conditions that depend on the run:

    {best}           rows at the best site of their concept, and rows without a site
    {site:METRICS}   the same; if these metrics (separated by +, in the syntax of LIKE) lack the best site, at their deepest layer
    {probe}          rows of the probe that the concept's findings use
    {last}           rows of the last checkpoint at which the metric was measured
    {thin:48}        rows of the checkpoints in a chart of at most 48, and rows without a step
    {other:48}       rows of pairs of checkpoints whose second one is in that chart
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from ontogeny.findings.finding import (
    PREFERRED_PROBES,
    SCORE_METRICS,
    collect_findings,
    preferred_name,
)
from ontogeny.findings.table import deepest_site
from ontogeny.findings.timeline import EVENT_METRICS, SERIES_METRICS, Timeline, make_timeline, order_like_run
from ontogeny.records import RECORD_COLUMNS
from ontogeny.storage.files import sql_literal

OWN_ROWS = "(control is null or control = '')"
"""SQL condition for rows of the measurement itself, without its floors."""
_KNOWN_VALUE = "(value is not null and not isnan(value))"
_CHECKPOINT_COLUMNS = ("lineage", "stage", "step", "tokens", "train_seed")


def metric_condition(*metrics: str) -> str:
    """SQL condition for the rows of some metrics."""
    return f"metric in ({', '.join(map(sql_literal, metrics))})"


SCORES_AT_BEST_SITE = f"{metric_condition(*SCORE_METRICS, 'cv_score')} and {{best}}"
FINDING_ROWS = f"{metric_condition('best_site', *EVENT_METRICS)} or ({SCORES_AT_BEST_SITE})"
"""Condition for the rows that `collect_findings` reads."""


class RecordSource:
    """The records of one run, read by condition.

    Args:
        query: Runs SQL over the view `records`.
        about: The content of run.json, for the order of concepts and checkpoints.
        line: The timeline of a chart of several runs; by default the run's own.
    """

    def __init__(
        self, query: Callable[[str], pd.DataFrame], about: Mapping[str, Any], line: Timeline | None = None
    ) -> None:
        self._query, self._about, self._given_line = query, about, line

    def rows(self, where: str) -> pd.DataFrame:
        """The rows that meet a condition, in the order of the run, then one row a checkpoint, for the time axis."""
        columns = ", ".join(f'"{name}"' for name in RECORD_COLUMNS)
        checkpoints = [
            f"({', '.join(sql_literal(None if pd.isna(v) else v) for v in row)})"
            for row in self._checkpoints.astype(object).itertuples(index=False)
        ]
        sql = f"select {columns} from records where {self._resolve(where)}"
        if checkpoints:
            casts = ", ".join(f"{name}::{RECORD_COLUMNS[name]} as {name}" for name in _CHECKPOINT_COLUMNS)
            values = f"(values {', '.join(checkpoints)}) as checkpoints({', '.join(_CHECKPOINT_COLUMNS)})"
            sql += f" union all by name select {casts} from {values}"
        return order_like_run(self._query(sql), self._about)

    def absent_counts(self) -> pd.DataFrame:
        """Numbers of rows without a value, by metric and note, in the order of the run; rows of events are left out."""
        counts = self._query(
            "select concept, metric, note, count(*) as n, min(i) as i, null as stage, null as step from "
            "(select concept, metric, note, row_number() over () as i from records "
            f"where not {_KNOWN_VALUE} and not {metric_condition(*EVENT_METRICS)}) group by all order by i"
        )
        return order_like_run(counts, {"concepts": self._about.get("concepts", [])})[["metric", "note", "n"]]

    def total_counts(self) -> tuple[int, int, int]:
        """Numbers of concepts, sites and known values."""
        counts = self._query(
            f"select count(distinct concept), count(distinct site), count(*) filter ({_KNOWN_VALUE}) from records"
        )
        concepts, sites, values = map(int, counts.iloc[0])
        return concepts, sites, values

    @functools.cached_property
    def line(self) -> Timeline:
        """The timeline of all checkpoints."""
        return self._given_line or make_timeline(self.rows("false"))

    @functools.cached_property
    def _checkpoints(self) -> pd.DataFrame:
        return self._query(
            f"select {', '.join(_CHECKPOINT_COLUMNS)} from records where metric is null or not "
            f"({metric_condition(*EVENT_METRICS)} or (step is null and {metric_condition(*SERIES_METRICS)})) "
            "group by all order by all"
        )

    def _resolve(self, where: str) -> str:
        """The condition with its braces filled in."""

        def fill(match: re.Match[str]) -> str:
            name, given = match[1], match[2]
            conditions: dict[str, Callable[[], str]] = {
                "best": lambda: _at_sites(self._best_sites),
                "site": lambda: self._at_drawn_sites(given),
                "probe": lambda: _of_concepts("method", self._probes),
                "last": lambda: self._last_checkpoints,
                "thin": lambda: self._drawn_checkpoints(int(given)),
                "other": lambda: self._drawn_partners(int(given)),
            }
            return conditions[name]()

        return re.sub(r"\{(\w+)(?::([^}]+))?\}", fill, where)

    @functools.cached_property
    def _best_sites(self) -> dict[str, set[str]]:
        """The sites of each concept's findings."""
        scored = f"{metric_condition(*SCORE_METRICS)} and {OWN_ROWS}"
        best = self._query("select distinct concept, site from records where metric = 'best_site'")
        names = ", ".join(sql_literal(site) for site in best["site"].dropna().unique()) or "null"
        measured = self._query(f"select distinct concept, site from records where {scored} and site in ({names})")
        sites = _sets(best.merge(measured), "site")
        concepts = self._query(f"select distinct concept from records where {scored} and concept is not null")
        rest = [concept for concept in concepts["concept"] if concept not in sites]
        if rest:  # a trace that has not finished: the site is chosen by the scores at the last checkpoint
            those = ", ".join(map(sql_literal, rest))
            rows = self.rows(
                f"concept in ({those}) and {metric_condition(*SCORE_METRICS, 'cv_score')} and {OWN_ROWS} and {{last}}"
            )
            for finding in collect_findings(rows, self.line):
                sites.setdefault(finding.subject.concept, set()).add(finding.site)
        return sites

    @functools.cached_property
    def _probes(self) -> dict[str, set[str]]:
        """The methods of each concept's findings."""
        rows = self._query(
            f"select concept, lineage, train_seed, metric, method, bool_or({_KNOWN_VALUE}) as known from records "
            f"where {metric_condition(*SCORE_METRICS)} and {OWN_ROWS} and {_at_sites(self._best_sites)} group by all order by all"
        )
        probes: dict[str, set[str]] = {}
        for known in (rows, rows[rows["known"]]):
            keys = ["concept", "lineage", "train_seed", "metric"]
            for key, own in known.groupby(keys, sort=False, dropna=False):
                probes.setdefault(str(key[0]), set()).add(preferred_name(own["method"], PREFERRED_PROBES))
        return probes

    def _at_drawn_sites(self, metrics: str) -> str:
        names = " or ".join(f"metric like {sql_literal(name)}" for name in metrics.split("+"))
        rows = self._query(
            f"select distinct concept, site, layer from records where ({names}) and {_KNOWN_VALUE} and site is not null order by all"
        )
        sites = {}
        for concept, own in rows.groupby("concept"):
            best = self._best_sites.get(str(concept), set()) & set(own["site"])
            sites[str(concept)] = best | {deepest_site(own)}
        return _at_sites(sites)

    @functools.cached_property
    def _last_checkpoints(self) -> str:
        rows = self._query(
            "select distinct lineage, train_seed, concept, metric, head is null as whole, "
            f"{_KNOWN_VALUE} as known, stage, step from records "
            f"where {metric_condition(*SCORE_METRICS, 'cv_score', 'p_familywise')} and {OWN_ROWS}"
        )
        rows = rows.assign(raw=rows["step"].astype(object))
        placed = self.line.place(rows.assign(step=_steps_on(self.line, rows)))
        keys = ["lineage", "train_seed", "concept", "metric", "whole", "known"]
        last = placed[placed["age"].eq(placed.groupby(keys, dropna=False)["age"].transform("max"))]
        ends = last[["concept", "metric", "stage", "raw"]].drop_duplicates()
        return _any(
            " and ".join(
                _equals(name, value) for name, value in zip(("concept", "metric", "stage", "step"), row, strict=True)
            )
            for row in ends.itertuples(index=False)
        )

    def _drawn_checkpoints(self, most: int) -> str:
        if len(self.line.moments) <= most:
            return "true"
        shown = self.line.ticks(most)
        stages = (
            f"({_equals('stage', str(stage))} and step in ({', '.join(str(int(s)) for s in own['step'] if s % 1 == 0) or 'null'}))"
            for stage, own in shown.groupby("stage")
        )
        return _any(["step is null", *stages])

    def _drawn_partners(self, most: int) -> str:
        other = "coords['other_step']"
        if len(self.line.moments) <= most:
            return f"{other} is not null"
        steps = self.line.ticks(most)["step"]
        return f"{other} in ({', '.join(sql_literal(str(int(step)) if step % 1 == 0 else 'None') for step in steps)})"


class TableSource(RecordSource):
    """A table in memory, which gives all its rows whatever the condition."""

    def __init__(self, records: pd.DataFrame, about: Mapping[str, Any]) -> None:
        super().__init__(lambda sql: records, about)
        self._table = order_like_run(records, about)

    def rows(self, where: str) -> pd.DataFrame:
        return self._table

    def absent_counts(self) -> pd.DataFrame:
        missing = self._table[self._table["value"].isna() & ~self._table["metric"].isin(EVENT_METRICS)]
        return missing[["metric", "note"]].assign(n=1)

    def total_counts(self) -> tuple[int, int, int]:
        table = self._table
        concepts, sites = (table[name].dropna().nunique() for name in ("concept", "site"))
        return concepts, sites, int(table["value"].notna().sum())


def as_source(records: pd.DataFrame | RecordSource, about: Mapping[str, Any]) -> RecordSource:
    """A table in memory as a source; a source as it is."""
    return TableSource(records, about) if isinstance(records, pd.DataFrame) else records


def _steps_on(line: Timeline, rows: pd.DataFrame) -> "pd.Series[float]":
    """Steps as the timeline numbers them: a checkpoint without a number is the end of its stage."""
    ends = line.moments[line.moments["step"].mod(1).ne(0)].set_index("stage")["step"]
    return rows["step"].astype("float64").fillna(rows["stage"].map(ends).astype("float64"))


def _sets(rows: pd.DataFrame, column: str) -> dict[str, set[str]]:
    return {str(concept): set(own[column]) for concept, own in rows.groupby("concept")}


def _at_sites(sites: Mapping[str, Iterable[str]]) -> str:
    return f"(site is null or {_of_concepts('site', sites)})"


def _of_concepts(column: str, names: Mapping[str, Iterable[str]]) -> str:
    return _any(
        f"(concept = {sql_literal(concept)} and {column} in ({', '.join(map(sql_literal, sorted(own)))}))"
        for concept, own in names.items()
    )


def _equals(column: str, value: Any) -> str:
    return f"{column} is null" if pd.isna(value) or value == "" else f"{column} = {sql_literal(value)}"


def _any(conditions: Iterable[str]) -> str:
    listed = [f"({condition})" for condition in conditions]
    return f"({' or '.join(listed)})" if listed else "false"
