"""What needs several checkpoints of one concept: corrected p-values, the best site, emergence, drift, readable against used.

Computed from the parts that the visits left behind, so no model is loaded; a summary over other checkpoints replaces the old one.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ontogeny.concept import Concept
from ontogeny.lab import drift, events, phases, significance
from ontogeny.lab.design import Design
from ontogeny.lab.job import MEASURE_VERSION, Job
from ontogeny.lab.measure import PROBES
from ontogeny.lab.rows import Stamp
from ontogeny.lab.visits import Best, Visit, visited
from ontogeny.records import Record
from ontogeny.run import Run, text
from ontogeny.store import digest


def summarise(job: Job, run: Run) -> None:
    """Write the summaries that are missing: one a concept, and one over all concepts together."""
    bests: dict[str, tuple[Best, list[Visit]]] = {}
    for concept in job.concepts:
        visits = visited(run, concept.name)
        if not visits:
            continue
        bests[concept.name] = best_site(run, visits), visits
        floor = _untrained_unit(run, concept)
        prefix = f"series-{digest(concept.name)}"
        unit = f"{prefix}-{digest([MEASURE_VERSION, concept.hash, floor, [visit.unit for visit in visits]])}"
        if not run.done(unit):
            records = _series(job, run, job.designs[concept.name], visits, bests[concept.name][0], floor)
            run.keep(unit, Stamp(job.lineage.name, unit=unit).sign(records))
        run.forget(prefix, but=unit)
    units = sorted(visit.unit for _, visits in bests.values() for visit in visits)
    together = f"together-{digest([MEASURE_VERSION, units])}"
    if not run.done(together):
        visits_of = {name: visits for name, (_, visits) in bests.items()}
        run.keep(together, Stamp(job.lineage.name, unit=together).sign(drift.between_concepts(run, job, visits_of)))
    run.forget("together-", but=together)


def _series(job: Job, run: Run, design: Design, visits: Sequence[Visit], best: Best, floor: str | None) -> list[Record]:
    seed = job.settings.seed
    untrained = run.scores(floor) if floor else None
    surface = _surface(run, design.concept.name)
    records = [
        _best_row(design, best, seed),
        *significance.rows(run, design, visits, seed),
        *drift.rows(run, design, visits, best),
    ]
    for stage in dict.fromkeys(visit.stage for visit in visits):
        inside = [visit for visit in visits if visit.stage == stage]
        records += events.rows(run, design, inside, best, untrained, surface, seed)
        records += phases.rows(run, design, stage, seed)
    return records


def best_site(run: Run, visits: Sequence[Visit]) -> Best:
    """The site with the best cross-validated score inside the training groups at the last checkpoint; in the stream, if that was read."""
    last = visits[-1]
    method = next(name for name in last.methods if name in PROBES)
    parts = ["resid"] if "resid" in last.sites else list(last.sites)
    facts = run.directions(last.unit, [f"{method}/{part}/facts/cv_score" for part in parts])
    scores: dict[Best, float] = {}
    for part in parts:
        values: Tensor = facts[f"{method}/{part}/facts/cv_score"].flatten()
        for at, (site, value) in enumerate(zip(last.sites[part], values.tolist(), strict=True)):
            scores[Best(method, site, at)] = value
    return max(scores, key=lambda best: (scores[best] == scores[best], scores[best]))


def _best_row(design: Design, best: Best, seed: int) -> Record:
    return Record(
        metric="best_site",
        value=float(best.site.layer),
        concept=design.concept.name,
        site=str(best.site),
        layer=best.site.layer,
        head=best.site.head,
        position=str(design.concept.position),
        method=best.method,
        split="train",
        n=len(design.split.train),
        seed=seed,
        note="best cross-validated score on the training groups at the last checkpoint",
    )


def _untrained_unit(run: Run, concept: Concept) -> str | None:
    found = run.records(f"control = 'untrained' and concept = {text(concept.name)}")
    return str(found.unit.iloc[0]) if len(found) else None


def _surface(run: Run, concept: str) -> Mapping[str, float]:
    """The best surface baseline of each metric."""
    found = run.records(f"control like 'surface%' and concept = {text(concept)} and n > 0")
    return {str(metric): float(rows.value.max()) for metric, rows in found.groupby("metric")}
