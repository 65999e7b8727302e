"""The main job: every concept at every site of every checkpoint, one visit a checkpoint, resumable at every unit.

1. Check all that can be checked (`job`).   2. Stream the checkpoints that lack a unit, the next one fetched meanwhile.
3. A visit captures all missing concepts in one pass (`capture`), measures each (`measure`) and writes one part a concept.
4. What needs several checkpoints (emergence, drift, corrected p-values) is computed from the parts (`series`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ontogeny.activations import parity
from ontogeny.activations.cache import ActivationCache
from ontogeny.data.concept import Concept
from ontogeny.dynamics.summary import summarise_trace
from ontogeny.errors import BadInput
from ontogeny.jobs.audit import audit
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.run_json import describe_run
from ontogeny.jobs.trace import ray_executor
from ontogeny.jobs.trace.executor import CheckpointExecutor, ModelOptions, concepts_without_floor, untrained_unit
from ontogeny.jobs.trace.plan import Failure, TracePlan, check_plan_matches_run, plan_trace
from ontogeny.jobs.trace.ray_cluster import RayCluster
from ontogeny.jobs.trace.ray_worker import wait_for_dying_workers
from ontogeny.jobs.trace.shards import Shard, gather_shards
from ontogeny.lineage import Checkpoint, Lineage
from ontogeny.measurements import surface_baselines
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import TraceSettings
from ontogeny.records import Record
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.rollback import rollback_on_failure
from ontogeny.storage.run import Run

_GATHER_SECONDS = 3600
"""Seconds that a share waits for another one that gathers."""


def trace(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: str | Path,
    settings: TraceSettings | None = None,
    *,
    device: str = "cpu",
    tokenizer: str | Path | None = None,
    allow_pickle: bool = False,
    delete_behind: bool = False,
    cache: ActivationCache | None = None,
    shard: Shard | None = None,
    cluster: RayCluster | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
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
    settings = settings or TraceSettings()
    job = plan_trace(lineage, concepts, settings, allow_pickle=allow_pickle)
    run = check_plan_matches_run(job, Path(out))
    named = Path(tokenizer) if tokenizer else None
    how = ModelOptions(device, named, allow_pickle, delete_behind, cache, command, on_progress, cluster)
    if shard is None:
        with run_lock(run.folder), rollback_on_failure(run, _missing_units(job, run)):
            wait_for_dying_workers(run)
            before = gather_shards(run)
            faults = _visit_all(job, run, job.missing(run), how)
            if not any(run.done(unit) for unit in job.units.values()):
                raise BadInput(faults[0].reason)
            _summarise(job, run, how, [asdict(fault) for fault in faults], before.parity)
            return run
    share = Run(shard.folder(run))
    todo = {c: k for c, k in job.missing(run).items() if shard.takes(job.checkpoints.index(c))}
    todo = {c: [k for k in concepts if not share.done(job.units[c, k.name])] for c, concepts in todo.items()}
    with run_lock(share.folder):
        floor = (
            [k for k in concepts_without_floor(job, run) if k in concepts_without_floor(job, share)]
            if shard.index == 0
            else []
        )
        faults = _visit_all(job, share, {c: k for c, k in todo.items() if k}, how, floor=floor)
        share.describe(share.about | {"failures": [asdict(fault) for fault in faults]})
    with run_lock(run.folder, patience=_GATHER_SECONDS):
        gathered = gather_shards(run)
        if any(run.done(unit) for unit in job.units.values()):
            _summarise(job, run, how, gathered.failures, gathered.parity)
    return run


def _write_description(
    job: TracePlan, run: Run, how: ModelOptions
) -> tuple[dict[str, object], Mapping[str, Sequence[Record]]]:
    """What run.json says, and the rows of the surface audit that the run does not hold yet."""
    audited = _audit_surface(job, run)
    told = describe_run(job, run, warnings=audited.warnings, device=how.device, command=how.command)
    told |= {"audit": audit.audit_for_run(job.lineage, run, known=job.prints, allow_pickle=how.allow_pickle)}
    if how.cluster:
        told |= {"executor": "ray", "device": how.cluster.device or how.device}
    return told | parity.parity_of_run(run), audited.records


def _visit_all(
    job: TracePlan,
    run: Run,
    todo: Mapping[Checkpoint, list[Concept]],
    how: ModelOptions,
    *,
    floor: Sequence[Concept] | None = None,
) -> list[Failure]:
    described, surfaces = _write_description(job, run, how)
    # run.json comes first: without it the folder of a killed job would not be known for a run.
    run.describe(described)
    for unit, records in surfaces.items():
        run.keep(unit, records)
    if how.cluster:
        return list(job.faults) + ray_executor.visit_all_on_ray(job, run, how, todo)
    floor = concepts_without_floor(job, run) if floor is None else floor
    return list(job.faults) + CheckpointExecutor(job, run, how, floor=floor).visit_all(todo)


def _summarise(
    job: TracePlan, run: Run, how: ModelOptions, failures: Sequence[Mapping[str, str]], certificate: object
) -> None:
    """What needs several checkpoints, and the last word in run.json."""
    how.watch(TraceProgress("", len(job.checkpoints), len(job.checkpoints), "relating checkpoints"))
    described, surfaces = _write_description(job, run, how)
    for unit, records in surfaces.items():
        run.keep(unit, records)
    _drop_floors(job, run)
    summarise_trace(run, job.designs, job.lineage.name, job.settings.seed)
    if certificate and not described.get("parity"):
        described["parity"] = certificate
    failed = {failure["checkpoint"] for failure in failures}
    finished = all(checkpoint.name in failed for checkpoint in job.missing(run))
    run.describe(described | {"failures": list(failures), "finished": finished})


def _drop_floors(job: TracePlan, run: Run) -> None:
    """The run's own step 0, found later and by another process, is the better floor."""
    for checkpoint in filter(job.untrained, job.checkpoints):
        for concept in job.concepts:
            if run.done(job.units[checkpoint, concept.name]):
                run.drop(untrained_unit(job, concept))


def _missing_units(job: TracePlan, run: Run) -> list[str]:
    return [job.units[c, concept.name] for c, concepts in job.missing(run).items() for concept in concepts]


@dataclass(frozen=True)
class _SurfaceAudit:
    warnings: Mapping[str, tuple[str, ...]]
    """By concept."""
    records: Mapping[str, Sequence[Record]]
    """By unit, of those that the run does not hold yet."""


def _audit_surface(job: TracePlan, run: Run) -> _SurfaceAudit:
    """Audit the surface of each concept once; its rows are a part of the run."""
    warnings, records = {}, {}
    known = {c["name"]: tuple(c["warnings"]) for c in run.about["concepts"]} if run.about_path.is_file() else {}
    for concept in job.concepts:
        unit = f"surface-{content_digest([concept.name, concept.hash, asdict(job.settings)])}"
        if run.done(unit) and concept.name in known:
            warnings[concept.name] = known[concept.name]
            continue
        found = surface_baselines.audit_surface(concept, job.designs[concept.name].split)
        records[unit] = CheckpointStamp(job.lineage.name, unit).on(surface_baselines.surface_records(concept, found))
        warnings[concept.name] = found.warnings
    return _SurfaceAudit(warnings, records)
