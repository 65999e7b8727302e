"""Rows of a run that a view or a finding needs, read by SQL: the run of a large model has more rows than fit in memory.

A condition is SQL over the columns of a record. Names in braces stand for conditions that depend on the run:

    {best}           rows at the best site of their concept, and rows without a site
    {site:METRICS}   the same; if these metrics (separated by +, in the syntax of LIKE) lack the best site, at their deepest layer
    {headless}       rows that are not of heads; all rows if the best site of a concept is a head
    {probe}          rows of the probe that the concept's findings use
    {last}           rows of the last checkpoint at which the metric was measured, a score unless metrics follow, {last:METRICS}
    {thin:48}        rows of about 48 checkpoints of their concept, and rows without a step; the extremes of a long run stay:
                     those of the concept's score, or of the metrics that follow the number, {thin:48:METRICS}
    {other:48}       rows of pairs of checkpoints whose second one is among them, {other:48:METRICS}
    {source:48:METRICS} rows of transfer from one of about 48 checkpoints, and rows without a source
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ontogeny.errors import BadInput, unknown_name
from ontogeny.findings.finding import (
    PREFERRED_PROBES,
    SCORE_METRICS,
    collect_findings,
    preferred_name,
)
from ontogeny.findings.shared_findings import share_findings
from ontogeny.findings.table import deepest_site
from ontogeny.findings.timeline import (
    EVENT_METRICS,
    SERIES_METRICS,
    Timeline,
    checkpoint_keys,
    make_timeline,
    order_like_run,
)
from ontogeny.records import RECORD_COLUMNS, checkpoint_label
from ontogeny.storage.files import sql_literal

OWN_ROWS = "(control is null or control = '')"
"""SQL condition for rows of the measurement itself, without its floors."""
_KNOWN_VALUE = "(value is not null and not isnan(value))"
_CHECKPOINT_COLUMNS = ("lineage", "stage", "step", "tokens", "train_seed")


def metric_condition(*metrics: str) -> str:
    """SQL condition for the rows of some metrics."""
    return f"metric in ({', '.join(map(sql_literal, metrics))})"


def named_metrics(where: str) -> list[str]:
    """The metrics that a condition names."""
    listed = re.findall(r"metric in \(([^)]*)\)", where) + re.findall(r"metric = ('[^']*')", where)
    return [name for names in listed for name in re.findall(r"'([^']*)'", names)]


SCORES_AT_BEST_SITE = f"{metric_condition(*SCORE_METRICS, 'cv_score')} and {{best}}"
_FINDING_METRICS = (
    "best_site",
    "stage_best_site",
    "earliest_site",
    "answer_accuracy",
    "ablation_effect",
    "ablation_p_corrected",
    *EVENT_METRICS,
)
_AT_ANY_SITE = (
    f"{metric_condition(*_FINDING_METRICS)} "
    "or (metric in ('steering_effect', 'steering_q') and method = 'ablate' and split = 'test')"
)
FINDING_ROWS = (
    f"{_AT_ANY_SITE} or ({SCORES_AT_BEST_SITE}) "
    "or (metric in ('selectivity', 'auroc_excess', 'r2_excess') and {best})"
)
"""Condition for the rows that `collect_findings` reads, and of the charts of findings: a report reads them once."""


_COLUMNS = ", ".join('to_json(coords) as "coords"' if name == "coords" else f'"{name}"' for name in RECORD_COLUMNS)


def _with_coords(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their further coordinates as dicts, of which equal ones are one: of thousands, DuckDB makes each anew."""
    known = {text: json.loads(text) for text in rows["coords"].dropna().unique()}
    coords = pd.Series([known.get(text) for text in rows["coords"]], index=rows.index, dtype=object)
    return rows.assign(coords=coords)


@dataclass(frozen=True)
class RowFilter:
    """The part of a run that a chart shows; an empty field does not restrict it."""

    concepts: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    """Sites (`resid.3`) or parts (`attn`)."""
    stages: tuple[str, ...] = ()
    step: int | None = None

    def __post_init__(self) -> None:
        if self.step is not None and (isinstance(self.step, str | bool) or self.step % 1):
            raise BadInput(f"`step` must be a whole number, got {self.step!r}: name a measured step, such as 1000.")

    @property
    def condition(self) -> str:
        """The rows as an SQL condition; rows without a concept, site, stage or step belong to all."""
        parts = [_empty_or("concept", self.concepts), _empty_or("stage", self.stages)]
        sites = [
            _empty_or("site", self.sites),
            *(f"starts_with(site, {sql_literal(f'{site}.')})" for site in self.sites),
        ]
        parts.append(" or ".join(condition for condition in sites if condition))
        parts.append("" if self.step is None else f"step is null or step = {int(self.step)}")
        return " and ".join(f"({part})" for part in parts if part) or "true"

    def check(self, query: Callable[[str], pd.DataFrame]) -> None:
        """Check that a run has what is named.

        Raises:
            BadInput: a concept, site, stage or step that the run does not have, or a step that several of its stages have.
        """
        for column, kind, names in (
            ("concept", "concept in this run", self.concepts),
            ("site", "site in this run", self.sites),
            ("stage", "stage in this run", self.stages),
        ):
            if not names:
                continue
            known = query(f"select distinct {column} as name from records where {column} is not null")["name"].tolist()
            parts = {name.partition(".")[0] for name in known} if column == "site" else set()
            for name in names:
                if name not in {*known, *parts}:
                    raise unknown_name(kind, name, [*known, *parts])
        if self.step is not None:
            self._check_step(query, self.step)

    def _check_step(self, query: Callable[[str], pd.DataFrame], step: int) -> None:
        measured = f"step is not null and concept is not null and not {metric_condition(*EVENT_METRICS)}"
        stages = f" and {_empty_or('stage', self.stages)}" if self.stages else ""
        rows = query(f"select distinct stage, step from records where {measured}{stages}")
        rows = rows.assign(stage=rows["stage"].astype(object).where(rows["stage"].notna(), ""))
        here = rows[rows["step"].eq(step)]
        if here.empty:
            near = rows.assign(far=(rows["step"] - step).abs()).nsmallest(3, "far").sort_values(["stage", "step"])
            names = ", ".join(
                checkpoint_label(stage, at) for stage, at in zip(near["stage"], near["step"], strict=True)
            )
            raise BadInput(f"`step` must be a measured step, got {step}: use one of the nearest, {names}.")
        if here["stage"].nunique() > 1:
            raise BadInput(f"`step` {step} is in the stages {', '.join(here['stage'])}: name one of them by `stage`.")


ALL_ROWS = RowFilter()


def _empty_or(column: str, names: Iterable[str]) -> str:
    listed = ", ".join(map(sql_literal, names))
    return f"{column} is null or {column} in ({listed})" if listed else ""


class RecordSource:
    """The records of one run, read by condition.

    Args:
        query: Runs SQL over the view `records`.
        about: The content of run.json, for the order of concepts and checkpoints.
        line: The timeline of a chart of several runs; by default the run's own.
        only: The part of the run that is read.
    """

    def __init__(
        self,
        query: Callable[[str], pd.DataFrame],
        about: Mapping[str, Any],
        line: Timeline | None = None,
        only: RowFilter = ALL_ROWS,
    ) -> None:
        self._all, self._about, self._given_line, self._only = query, about, line, only
        self._drawn: dict[str, pd.DataFrame | None] = {}
        self._conditions: dict[str, str] = {}

    def _query(self, sql: str) -> pd.DataFrame:
        if self._only == ALL_ROWS:
            return self._all(sql)
        return self._all(f"with records as (select * from records where {self._only.condition}) {sql}")

    def rows(self, where: str) -> pd.DataFrame:
        """The rows that meet a condition, in the order of the run, then one row a checkpoint, for the time axis."""
        if where == FINDING_ROWS:
            return self._finding_rows
        return self._rows(where)

    @functools.cached_property
    def _finding_rows(self) -> pd.DataFrame:
        if self._reads_heads:
            return share_findings(self._rows(FINDING_ROWS))
        # Most rows of a large run are of heads. They come last in a part, and are skipped where a condition names them.
        return share_findings(
            self._rows(f"head is null and ({FINDING_ROWS})", f"head is not null and ({_AT_ANY_SITE})")
        )

    @property
    def _reads_heads(self) -> bool:
        """Whether the best site of a concept is a head."""
        return any(site.startswith("head.") for sites in self._best_sites.values() for site in sites)

    def _rows(self, *wheres: str) -> pd.DataFrame:
        checkpoints = [
            f"({', '.join(sql_literal(None if pd.isna(v) else v) for v in row)})"
            for row in self._checkpoints.astype(object).itertuples(index=False)
        ]
        sql = " union all ".join(f"select {_COLUMNS} from records where {self._resolve(where)}" for where in wheres)
        if checkpoints:
            casts = ", ".join(f"{name}::{RECORD_COLUMNS[name]} as {name}" for name in _CHECKPOINT_COLUMNS)
            values = f"(values {', '.join(checkpoints)}) as checkpoints({', '.join(_CHECKPOINT_COLUMNS)})"
            sql += f" union all by name select {casts} from {values}"
        return order_like_run(_with_coords(self._query(sql)), self._about)

    def page(self, where: str, also: str, order: str, most: int, start: int) -> tuple[pd.DataFrame, int]:
        """Some of the rows that meet two conditions, and the number of all of them.

        Args:
            where: A condition.
            also: A condition in SQL, in which braces have no meaning.
            order: Columns by which they are sorted, as in SQL.
            most: Maximum number of rows.
            start: Number of rows that are skipped.
        """
        condition = f"({self._resolve(where)}) and ({also})"
        count = int(self._query(f"select count(*) as n from records where {condition}")["n"].iloc[0])
        sql = f"select {_COLUMNS} from records where {condition} order by {order} limit {int(most)} offset {int(start)}"
        return _with_coords(self._query(sql)), count

    def counts(self, conditions: Iterable[str]) -> list[int]:
        """Numbers of rows that meet each condition, in one pass over the records."""
        filters = [f"count(*) filter ({self._resolve(where)})" for where in conditions]
        counts = self._query(f"select {', '.join(filters)} from records") if filters else pd.DataFrame([[]])
        return [int(n) for n in counts.iloc[0]]

    def absent_counts(self) -> pd.DataFrame:
        """Numbers of rows without a value, by metric and note, in the order of the run; rows of events are left out."""
        counts = self._query(
            "select concept, metric, note, count(*) as n, min(i) as i, null as stage, null as step from "
            "(select concept, metric, note, row_number() over () as i from records "
            f"where not {_KNOWN_VALUE} and not {metric_condition(*EVENT_METRICS)}) group by all order by i"
        )
        return order_like_run(counts, {"concepts": self._about.get("concepts", [])})[["metric", "note", "n"]]

    def blank_reason(self, where: str, reason: str) -> str:
        """Why a chart is blank: the reason from the rows that it read, or, if it read none, from all rows of its metrics."""
        metrics = [name for name in named_metrics(where) if name not in SERIES_METRICS]
        if not reason.startswith("No rows") or not metrics:
            return reason
        counts = self._query(
            f"select note, count(*) filter ({_KNOWN_VALUE}) as known, count(*) as n from records "
            f"where {metric_condition(*metrics)} group by note order by n desc, note"
        )
        if counts.empty:
            return reason
        if counts["known"].sum():
            return reason
        notes = [str(note) for note in counts["note"] if isinstance(note, str) and note]
        return f"{int(counts['n'].sum()):,} rows without a value: {'; '.join(notes[:3]) or 'no reason given'}."

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
        # A head that was measured has a cross-validated score or, as after an evaluation, a score of readability alone. The first is one
        # of dozens of metrics of a large run, and enough if it has all the checkpoints of run.json.
        rows = self._checkpoints_with_heads("cv_score")
        traced = self._about.get("lineage", {}).get("checkpoints", [])
        found = set(checkpoint_keys(rows))
        if not traced or any((one.get("stage") or "", one.get("step")) not in found for one in traced):
            rows = self._checkpoints_with_heads("cv_score", *SCORE_METRICS)
        return rows

    def _checkpoints_with_heads(self, *metrics: str) -> pd.DataFrame:
        """Checkpoints; metrics are left out here: as a condition they would be compared in every row of a large run.

        Args:
            metrics: Those of heads that are looked at.
        """
        columns = ", ".join(_CHECKPOINT_COLUMNS)
        rows = self._query(
            f"select distinct {columns}, metric from records where head is null union "
            f"select distinct {columns}, metric from records where head is not null and {metric_condition(*metrics)} order by all"
        )
        event = rows["metric"].isin(EVENT_METRICS) | (rows["metric"].isin(SERIES_METRICS) & rows["step"].isna())
        return rows[~event].drop(columns="metric").drop_duplicates()

    def _resolve(self, where: str) -> str:
        """The condition with its braces filled in."""

        def fill(match: re.Match[str]) -> str:
            name, given = match[1], match[2]
            conditions: dict[str, Callable[[], str]] = {
                "best": lambda: _at_sites(self._best_sites),
                "headless": lambda: "true" if self._reads_heads else "head is null",
                "site": lambda: self._at_drawn_sites(given),
                "probe": lambda: _of_concepts("method", self._probes),
                "last": lambda: self._at_last_checkpoint(given),
                "thin": lambda: self._at_drawn_checkpoints(given),
                "other": lambda: self._with_drawn_partners(given),
                "source": lambda: self._from_drawn_sources(given),
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
        known = {str(concept["name"]) for concept in self._about.get("concepts", [])}
        if known and known <= sites.keys():
            return sites
        others = f"concept not in ({', '.join(map(sql_literal, sites))})" if sites else "concept is not null"
        rest = self._query(f"select distinct concept from records where {scored} and {others}")["concept"].tolist()
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

    def _at_last_checkpoint(self, given: str | None) -> str:
        if (key := f"last {given}") not in self._conditions:
            metrics = given.split("+") if given else [*SCORE_METRICS, "cv_score", "p_familywise"]
            self._conditions[key] = self._last_checkpoints(metrics)
        return self._conditions[key]

    def _last_checkpoints(self, metrics: Iterable[str]) -> str:
        rows = self._query(
            "select distinct lineage, train_seed, concept, metric, head is null as whole, "
            f"{_KNOWN_VALUE} as known, stage, step from records where {metric_condition(*metrics)} and {OWN_ROWS}"
        )
        rows = rows.assign(raw=rows["step"].astype(object))
        placed = self.line.place(rows.assign(step=self.line.numbered_steps(rows["stage"], rows["step"])))
        keys = ["lineage", "train_seed", "concept", "metric", "whole", "known"]
        last = placed[placed["age"].eq(placed.groupby(keys, dropna=False)["age"].transform("max"))]
        ends = last[["concept", "metric", "stage", "raw"]].drop_duplicates()
        return _any(
            " and ".join(
                _equals(name, value) for name, value in zip(("concept", "metric", "stage", "step"), row, strict=True)
            )
            for row in ends.itertuples(index=False)
        )

    def _at_drawn_checkpoints(self, given: str) -> str:
        drawn = self._drawn_checkpoints(given)
        if drawn is None:
            return "true"
        listed = (
            f"({_equals('concept', concept)} and {_equals('stage', stage)} and step in ({_whole(own['step'])}))"
            for (concept, stage), own in drawn.groupby(["concept", "stage"], sort=False, dropna=False)
        )
        return _any(["step is null", *listed])

    def _with_drawn_partners(self, given: str) -> str:
        drawn, other = self._drawn_checkpoints(given), "coords['other_step']"
        if drawn is None:
            return f"{other} is not null"
        return _any(
            f"{_equals('concept', concept)} and {other} in ({_coords(own['step'])})"
            for concept, own in drawn.groupby("concept", sort=False, dropna=False)
        )

    def _from_drawn_sources(self, given: str) -> str:
        drawn, step = self._drawn_checkpoints(given, "source_"), "coords['source_step']"
        if drawn is None:
            return "true"
        listed = (
            f"({_equals('concept', concept)} and {_stage_is(stage)} and {step} in ({_coords(own['step'])}))"
            for (concept, stage), own in drawn.groupby(["concept", "stage"], sort=False, dropna=False)
        )
        return _any([f"{step} is null", *listed])

    def _drawn_checkpoints(self, given: str, side: str = "") -> pd.DataFrame | None:
        """Concept, stage and step of the checkpoints in a chart; None if it has room for all."""
        if (key := side + given) not in self._drawn:
            most, _, metrics = given.partition(":")
            large = len(self.line.moments) > int(most)
            self._drawn[key] = self._thinned(int(most), metrics.split("+") if metrics else [], side) if large else None
        return self._drawn[key]

    def _thinned(self, most: int, metrics: list[str], side: str) -> pd.DataFrame:
        of = (
            metric_condition(*metrics)
            if metrics
            else f"{metric_condition(*SCORE_METRICS)} and {_at_sites(self._best_sites)}"
        )
        place = (
            "coords['source_stage'] as stage, try_cast(coords['source_step'] as bigint) as step"
            if side
            else "stage, step"
        )
        rows = self._query(
            f"select concept, stage, step, avg(value) as value from (select concept, value, {place} from records where {of} "
            f"and {OWN_ROWS} and {_KNOWN_VALUE}) where step is not null group by all order by all"
        )
        rows = rows.assign(stage=rows["stage"].astype(object).where(rows["stage"].notna(), ""))
        kept = [self.line.thin(own, most) for _, own in rows.groupby("concept", sort=False, dropna=False)]
        return pd.concat(kept) if kept else rows


class TableSource(RecordSource):
    """A table in memory, which gives all its rows whatever the condition."""

    def __init__(self, records: pd.DataFrame, about: Mapping[str, Any]) -> None:
        super().__init__(lambda sql: records, about)
        self._table = order_like_run(records, about)

    def rows(self, where: str) -> pd.DataFrame:
        return self._table

    def blank_reason(self, where: str, reason: str) -> str:
        return reason

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


def _sets(rows: pd.DataFrame, column: str) -> dict[str, set[str]]:
    return {str(concept): set(own[column]) for concept, own in rows.groupby("concept")}


def _at_sites(sites: Mapping[str, Iterable[str]]) -> str:
    return f"(site is null or {_of_concepts('site', sites)})"


def _of_concepts(column: str, names: Mapping[str, Iterable[str]]) -> str:
    return _any(
        f"(concept = {sql_literal(concept)} and {column} in ({', '.join(map(sql_literal, sorted(own)))}))"
        for concept, own in names.items()
    )


def _whole(steps: pd.Series) -> str:
    return ", ".join(str(int(step)) for step in steps if step % 1 == 0) or "null"


def _coords(steps: pd.Series) -> str:
    """Steps as coordinates have them."""
    texts = (str(int(step)) if step % 1 == 0 else "None" for step in steps)
    return ", ".join(map(sql_literal, dict.fromkeys(texts))) or "null"


def _stage_is(stage: object) -> str:
    return f"coalesce(coords['source_stage'], '') = {sql_literal(str(stage))}"


def _equals(column: str, value: Any) -> str:
    return f"{column} is null" if pd.isna(value) or value == "" else f"{column} = {sql_literal(value)}"


def _any(conditions: Iterable[str]) -> str:
    listed = [f"({condition})" for condition in conditions]
    return f"({' or '.join(listed)})" if listed else "false"
