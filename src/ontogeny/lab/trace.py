"""The main job: every concept at every site of every checkpoint, one visit a checkpoint, resumable at every unit.

1. Check all that can be checked (`job`).   2. Stream the checkpoints that lack a unit, the next one fetched meanwhile.
3. A visit captures all missing concepts in one pass (`capture`), measures each (`measure`) and writes one part a concept.
4. What needs several checkpoints (emergence, drift, corrected p-values) is computed from the parts (`series`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ontogeny import surface
from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab import audit, on_ray, parity
from ontogeny.lab.about import about
from ontogeny.lab.alone import alone
from ontogeny.lab.cache import Cache
from ontogeny.lab.cluster import Cluster
from ontogeny.lab.job import Fault, Job, prepare, refuse_contradictions
from ontogeny.lab.progress import Progress, Watch, silent
from ontogeny.lab.replica import settle
from ontogeny.lab.rows import Stamp
from ontogeny.lab.series import summarise
from ontogeny.lab.settings import Settings
from ontogeny.lab.shards import Shard, gather
from ontogeny.lab.undo import all_or_nothing
from ontogeny.lab.visitor import How, Visitor, floor_unit, floorless
from ontogeny.lineage import Checkpoint, Lineage
from ontogeny.records import Record
from ontogeny.run import Run
from ontogeny.store import digest

GATHERING = 3600
"""Seconds that a share waits for another one that gathers."""


def trace(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: str | Path,
    settings: Settings | None = None,
    *,
    device: str = "cpu",
    tokenizer: str | Path | None = None,
    allow_pickle: bool = False,
    delete_behind: bool = False,
    cache: Cache | None = None,
    shard: Shard | None = None,
    cluster: Cluster | None = None,
    command: str | None = None,
    on_progress: Watch = silent,
) -> Run:
    """Trace concepts through the checkpoints of a lineage into a run directory; what is there already is not done again.

    With `shard` this process visits its share of the checkpoints alone; what all shares have done so far is gathered at its end.
    With `cluster` the visits are made by workers on Ray; this process hands them out and holds the run.

    Raises:
        BadInput: nothing can be traced, the run at `out` was made in another way, or another process writes there; nothing is
            left behind then.
    """
    if shard and cluster:
        raise BadInput("a share of a run is one process: leave --shard out where Ray divides the work.")
    settings = settings or Settings()
    job = prepare(lineage, concepts, settings, allow_pickle=allow_pickle)
    run = refuse_contradictions(job, Path(out))
    named = Path(tokenizer) if tokenizer else None
    how = How(device, named, allow_pickle, delete_behind, cache, command, on_progress, cluster)
    if shard is None:
        with alone(run.folder), all_or_nothing(run, _missing(job, run)):
            settle(run)
            before = gather(run)
            faults = _visit_all(job, run, job.missing(run), how)
            if not any(run.done(unit) for unit in job.units.values()):
                raise BadInput(faults[0].reason)
            _relate(job, run, how, [asdict(fault) for fault in faults], before.parity)
            return run
    share = Run(shard.folder(run))
    todo = {c: k for c, k in job.missing(run).items() if shard.takes(job.checkpoints.index(c))}
    todo = {c: [k for k in concepts if not share.done(job.units[c, k.name])] for c, concepts in todo.items()}
    with alone(share.folder):
        floor = [k for k in floorless(job, run) if k in floorless(job, share)] if shard.index == 0 else []
        faults = _visit_all(job, share, {c: k for c, k in todo.items() if k}, how, floor=floor)
        share.describe(share.about | {"failures": [asdict(fault) for fault in faults]})
    with alone(run.folder, patience=GATHERING):
        gathered = gather(run)
        if any(run.done(unit) for unit in job.units.values()):
            _relate(job, run, how, gathered.failures, gathered.parity)
    return run


def _described(job: Job, run: Run, how: How) -> tuple[dict[str, object], Mapping[str, Sequence[Record]]]:
    """What run.json says, and the rows of the surface audit that the run does not hold yet."""
    audited = _surface(job, run)
    told = about(job, run, warnings=audited.warnings, device=how.device, command=how.command)
    told |= {"audit": audit.audited(job.lineage, run, known=job.prints, allow_pickle=how.allow_pickle)}
    if how.cluster:
        told |= {"executor": "ray", "device": how.cluster.device or how.device}
    return told | parity.kept(run), audited.records


def _visit_all(
    job: Job,
    run: Run,
    todo: Mapping[Checkpoint, list[Concept]],
    how: How,
    *,
    floor: Sequence[Concept] | None = None,
) -> list[Fault]:
    described, surfaces = _described(job, run, how)
    # run.json comes first: without it the folder of a killed job would not be known for a run.
    run.describe(described)
    for unit, records in surfaces.items():
        run.keep(unit, records)
    if how.cluster:
        return list(job.faults) + on_ray.visit_all(job, run, how, todo)
    floor = floorless(job, run) if floor is None else floor
    return list(job.faults) + Visitor(job, run, how, floor=floor).visit_all(todo)


def _relate(job: Job, run: Run, how: How, failures: Sequence[Mapping[str, str]], certificate: object) -> None:
    """What needs several checkpoints, and the last word in run.json."""
    how.watch(Progress("", len(job.checkpoints), len(job.checkpoints), "relating checkpoints"))
    described, surfaces = _described(job, run, how)
    for unit, records in surfaces.items():
        run.keep(unit, records)
    _drop_floors(job, run)
    summarise(job, run)
    if certificate and not described.get("parity"):
        described["parity"] = certificate
    failed = {failure["checkpoint"] for failure in failures}
    finished = all(checkpoint.name in failed for checkpoint in job.missing(run))
    run.describe(described | {"failures": list(failures), "finished": finished})


def _drop_floors(job: Job, run: Run) -> None:
    """The run's own step 0, found later and by another process, is the better floor."""
    for checkpoint in filter(job.untrained, job.checkpoints):
        for concept in job.concepts:
            if run.done(job.units[checkpoint, concept.name]):
                run.drop(floor_unit(job, concept))


def _missing(job: Job, run: Run) -> list[str]:
    return [job.units[c, concept.name] for c, concepts in job.missing(run).items() for concept in concepts]


@dataclass(frozen=True)
class _Audited:
    warnings: Mapping[str, tuple[str, ...]]
    """By concept."""
    records: Mapping[str, Sequence[Record]]
    """By unit, of those that the run does not hold yet."""


def _surface(job: Job, run: Run) -> _Audited:
    """Audit the surface of each concept once; its rows are a part of the run."""
    warnings, records = {}, {}
    known = {c["name"]: tuple(c["warnings"]) for c in run.about["concepts"]} if run.about_path.is_file() else {}
    for concept in job.concepts:
        unit = f"surface-{digest([concept.name, concept.hash, asdict(job.settings)])}"
        if run.done(unit) and concept.name in known:
            warnings[concept.name] = known[concept.name]
            continue
        found = surface.audit(concept, job.designs[concept.name].split)
        records[unit] = Stamp(job.lineage.name, unit).on(surface.records(concept, found))
        warnings[concept.name] = found.warnings
    return _Audited(warnings, records)
