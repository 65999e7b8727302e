"""Summaries over checkpoints: best site, corrected p-values, drift, emergence, change points.

Computed from finished units, so no model is loaded; a summary over other checkpoints replaces the old one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.dynamics import drift, emergence, phases, significance
from ontogeny.dynamics.emergence import ConceptSeries
from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, measured_checkpoints
from ontogeny.measurements.design import Design
from ontogeny.measurements.measure import PROBE_METHODS
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import MEASURE_VERSION
from ontogeny.records import Record
from ontogeny.storage.files import RecordBlock, content_digest
from ontogeny.storage.run import Run, sql_text

_SUMMARY_VERSION = 2
"""Increased whenever the same units would give other rows."""


def summarise_trace(
    run: Run,
    designs: Mapping[str, Design],
    lineage: str,
    seed: int,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Write the missing summaries: two per concept, of which one holds its events, and one over all concepts.

    Args:
        on_progress: Called with the concept at work, and how many of how many concepts are finished.
    """
    series: dict[str, ConceptSeries] = {}
    units: dict[str, list[Any]] = {}
    for number, design in enumerate(designs.values()):
        concept = design.concept
        on_progress(concept.name, number, len(designs))
        visits = measured_checkpoints(run, concept.name)
        if not visits:
            continue
        floor, prefix = _untrained_unit(run, concept), f"series-{content_digest(concept.name)}"
        untrained = run.scores(floor) if floor else None
        surface = _surface_baselines(run, concept.name)
        one = series[concept.name] = ConceptSeries(design, visits, best_site(run, visits), untrained, surface)
        units[concept.name] = [concept.hash, floor, [visit.unit for visit in visits]]
        unit = f"{prefix}-{content_digest([MEASURE_VERSION, _SUMMARY_VERSION, *units[concept.name]])}"
        if not run.done(unit):
            run.keep(unit, CheckpointStamp(lineage, unit=unit).sign(_concept_summary(run, one, seed)))
        run.forget(prefix, but=unit)
    _keep_events(run, series, content_digest([MEASURE_VERSION, _SUMMARY_VERSION, units]), lineage, seed)
    _keep_together(run, series, lineage, seed)


def _keep_events(run: Run, series: Mapping[str, ConceptSeries], key: str, lineage: str, seed: int) -> None:
    """Write the events of each concept, which are corrected over all of them."""
    names = {name: f"events-{content_digest(name)}" for name in series}
    if not all(run.done(f"{prefix}-{key}") for prefix in names.values()):
        events = emergence.emergence_rows(run, list(series.values()), seed)
        turns = phases.change_point_rows(run, [one.design for one in series.values()], seed)
        for name, prefix in names.items():
            unit = f"{prefix}-{key}"
            run.keep(unit, CheckpointStamp(lineage, unit=unit).sign([*events[name], *turns[name]]))
    for prefix in names.values():
        run.forget(prefix, but=f"{prefix}-{key}")


def _keep_together(run: Run, series: Mapping[str, ConceptSeries], lineage: str, seed: int) -> None:
    """Write the rows about several concepts at once."""
    units = sorted(visit.unit for one in series.values() for visit in one.visits)
    unit = f"together-{content_digest([MEASURE_VERSION, units])}"
    if not run.done(unit):
        designs = {name: one.design for name, one in series.items()}
        records = drift.concept_cosine_rows(run, designs, {name: one.visits for name, one in series.items()}, seed)
        run.keep(unit, CheckpointStamp(lineage, unit=unit).sign(records))
    run.forget("together-", but=unit)


def _concept_summary(run: Run, series: ConceptSeries, seed: int) -> Iterator[Record | RecordBlock]:
    design, visits, best = series.design, series.visits, series.best
    yield _best_row(design, best, seed)
    yield from significance.significance_rows(run, design, visits, seed)
    yield from drift.drift_rows(run, design, visits, best)
    for stage in dict.fromkeys(visit.stage for visit in visits):
        yield from phases.dependence_claim_rows(run, design, stage, seed)


def best_site(run: Run, visits: Sequence[MeasuredCheckpoint]) -> BestSite:
    """The site with the best cross-validated score on the training groups of the last checkpoint; in the residual stream if measured."""
    last = visits[-1]
    method = next(name for name in last.methods if name in PROBE_METHODS)
    parts = ["resid"] if "resid" in last.sites else list(last.sites)
    facts = run.directions(last.unit, [f"{method}/{part}/facts/cv_score" for part in parts])
    scores: dict[BestSite, float] = {}
    for part in parts:
        values: Tensor = facts[f"{method}/{part}/facts/cv_score"].flatten()
        for at, (site, value) in enumerate(zip(last.sites[part], values.tolist(), strict=True)):
            scores[BestSite(method, site, at)] = value
    return max(scores, key=lambda best: (scores[best] == scores[best], scores[best]))


def _best_row(design: Design, best: BestSite, seed: int) -> Record:
    about = design.row_context(seed, n=len(design.split.train), split="train")
    note = "best cross-validated score on the training groups at the last checkpoint"
    return about.row("best_site", float(best.site.layer), best.site, method=best.method, note=note)


def _untrained_unit(run: Run, concept: Concept) -> str | None:
    found = run.records(f"control = 'untrained' and concept = {sql_text(concept.name)}")
    return str(found.unit.iloc[0]) if len(found) else None


def _surface_baselines(run: Run, concept: str) -> Mapping[str, float]:
    """The highest surface baseline of each metric."""
    found = run.records(f"control like 'surface%' and concept = {sql_text(concept)} and n > 0")
    return {str(metric): float(rows.value.max()) for metric, rows in found.groupby("metric")}
