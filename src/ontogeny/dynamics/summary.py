"""Summaries over checkpoints: best site, corrected p-values, drift, emergence, change points.

Computed from finished units, so no model is loaded; a summary over other checkpoints replaces the old one.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ontogeny.dynamics import drift, emergence, phases, significance
from ontogeny.dynamics.emergence import ConceptSeries
from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, measured_checkpoints
from ontogeny.measurements.design import Design
from ontogeny.measurements.measure import PROBE_METHODS
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import MEASURE_VERSION
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.storage.files import RecordBlock, content_digest
from ontogeny.storage.run import Run

RelatingProgress = Callable[[str, int, int, int, int], None]
"""Concept, finished concepts, all concepts, finished checkpoints, all checkpoints."""
_SUMMARY_VERSION = 4
"""Increased whenever the same units would give other rows."""


def summarise_trace(
    run: Run,
    designs: Mapping[str, Design],
    lineage: str,
    seed: int,
    on_progress: RelatingProgress = lambda *_: None,
) -> None:
    """Write the missing summaries: two per concept, of which one holds its events, and one over all concepts.

    Args:
        on_progress: Called with the concept at work, how many of how many concepts are finished, and how many of how many of its
            checkpoints.
    """
    visits = {name: measured_checkpoints(run, name) for name in designs}
    designs = {name: design for name, design in designs.items() if visits[name]}
    baselines = _baselines(run, {part for of in visits.values() for visit in of for part in visit.sites})
    units: dict[str, list[Any]] = {}
    names: dict[str, tuple[str, str]] = {}
    for name, design in designs.items():
        units[name] = [design.concept.hash, baselines[name].untrained, [visit.unit for visit in visits[name]]]
        prefix = f"series-{content_digest(name)}"
        names[name] = prefix, f"{prefix}-{content_digest([MEASURE_VERSION, _SUMMARY_VERSION, *units[name]])}"
    missing = [name for name, (_, unit) in names.items() if not run.done(unit)]
    key = content_digest([MEASURE_VERSION, _SUMMARY_VERSION, units])
    lacks_events = not all(run.done(_events_unit(name, key)) for name in units)

    @functools.cache
    def series(name: str) -> ConceptSeries:
        floor = baselines[name].untrained
        untrained = run.scores(floor) if floor else None
        best = best_site(run, visits[name])
        words = None
        if designs[name].test_folds is not None and baselines[name].surface_scores is not None:
            unit, control = baselines[name].surface_scores
            words = control, run.scores(unit, [control])[control]
        return ConceptSeries(designs[name], visits[name], best, untrained, baselines[name].surface, words)

    # On the second core: reading records, compressing millions of rows and looking for phases take as long as the rest.
    with ThreadPoolExecutor(1) as background:
        # Records are read first, since they change as soon as a summary is written.
        claims = background.submit(phases.dependence_claim_rows, run, [designs[name] for name in missing], seed)
        curves = background.submit(phases.dependence_curves, run, units) if lacks_events else None
        others = background.submit(emergence.looks_at_others, run, units) if lacks_events else None
        writing: Future[None] | None = None
        for number, name in enumerate(missing):
            report = functools.partial(on_progress, name, number, len(missing) + 1)
            report(0, len(visits[name]))
            rows = [*_concept_summary(run, series(name), seed, report), *claims.result()[name]]
            if writing is not None:
                writing.result()
            writing = background.submit(_keep_summary, run, *names[name], lineage, rows)
        on_progress("all concepts", len(missing), len(missing) + 1, 0, 0)
        events: dict[str, list[Record]] = {}
        if curves is not None and others is not None:
            turns = background.submit(phases.change_point_rows, curves.result(), list(designs.values()), seed)
            found = emergence.emergence_rows(run, [series(name) for name in units], others.result(), seed)
            events = {name: [*found[name], *turns.result()[name]] for name in units}
        if writing is not None:
            writing.result()
    for name in designs.keys() - set(missing):  # a kill before `forget` leaves the older summary
        run.forget(names[name][0], but=names[name][1])
    _keep_events(run, events, units, key, lineage)
    _keep_together(run, designs, visits, lineage, seed)


def _keep_summary(run: Run, prefix: str, unit: str, lineage: str, rows: Sequence[Record | RecordBlock]) -> None:
    run.keep(unit, CheckpointStamp(lineage, unit=unit).sign(rows))
    run.forget(prefix, but=unit)


@dataclass(frozen=True)
class _Baselines:
    """Scores that a concept has without the model's training."""

    untrained: str | None = None
    """The unit with the random initialisation."""
    surface: Mapping[str, float] = field(default_factory=dict)
    """The highest surface baseline of each metric."""
    surface_scores: tuple[str, str] | None = None
    """Unit and name of the baseline with the highest main metric."""


def _baselines(run: Run, measured_parts: Set[str]) -> Mapping[str, _Baselines]:
    """The baselines of each concept."""
    # Most rows of a large run are of heads, which come last in a part and are skipped where a unit has other rows.
    where = "true" if measured_parts <= {"head"} else "head is null"
    rows = run.query(
        "select concept, control, metric, max(value) filter (where n > 0) as most, any_value(unit) as unit from records "
        f"where {where} and (control = 'untrained' or control like 'surface%') group by all"
    )
    found: dict[str, _Baselines] = defaultdict(_Baselines)
    for concept, group in rows.groupby("concept"):
        untrained = group[group.control == "untrained"]
        surface = group[(group.control != "untrained") & group.most.notna()]
        highest = {str(metric): float(of.most.max()) for metric, of in surface.groupby("metric")}
        # By name too, since the order of the rows is not fixed: of equal baselines, it is always the same one.
        main = surface[surface.metric.isin(["auroc", "r2"])].sort_values(["most", "control", "unit"])
        best = (str(main.unit.iloc[-1]), str(main.control.iloc[-1])) if len(main) else None
        found[str(concept)] = _Baselines(str(untrained.unit.iloc[0]) if len(untrained) else None, highest, best)
    return found


def _keep_events(
    run: Run, events: Mapping[str, Sequence[Record]], units: Mapping[str, list[Any]], key: str, lineage: str
) -> None:
    for name, rows in events.items():
        unit = _events_unit(name, key)
        run.keep(unit, CheckpointStamp(lineage, unit=unit).sign(rows))
    for name in units:
        run.forget(_events_unit(name), but=_events_unit(name, key))


def _events_unit(name: str, *key: str) -> str:
    return "-".join(["events", content_digest(name), *key])


def _keep_together(
    run: Run,
    designs: Mapping[str, Design],
    visits: Mapping[str, Sequence[MeasuredCheckpoint]],
    lineage: str,
    seed: int,
) -> None:
    """Write the rows about several concepts at once."""
    units = sorted(visit.unit for name in designs for visit in visits[name])
    unit = f"together-{content_digest([MEASURE_VERSION, units])}"
    if not run.done(unit):
        records = drift.concept_cosine_rows(run, designs, {name: visits[name] for name in designs}, seed)
        run.keep(unit, CheckpointStamp(lineage, unit=unit).sign(records))
    run.forget("together-", but=unit)


def _concept_summary(
    run: Run,
    series: ConceptSeries,
    seed: int,
    on_checkpoint: Callable[[int, int], None],
) -> Iterator[Record | RecordBlock]:
    design, visits, best = series.design, series.visits, series.best
    yield _best_row(design, best, seed)
    yield from _stage_best_rows(run, design, visits, seed)
    yield from significance.earliest_site_rows(run, design, visits, best.method, seed)
    yield from drift.drift_rows(run, design, visits, best)
    yield from significance.significance_rows(run, design, visits, seed, on_checkpoint)
    yield from emergence.surface_excess_rows(run, series, seed)


def _stage_best_rows(run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], seed: int) -> Iterator[Record]:
    """The best site at the last checkpoint of each stage."""
    for visit in {visit.stage: visit for visit in visits}.values():
        best = best_site(run, [visit])
        row = _best_row(design, best, seed)
        note = "best cross-validated score at the last checkpoint of the stage"
        yield from stamp_checkpoint([replace(row, metric="stage_best_site", note=note)], visit)


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
