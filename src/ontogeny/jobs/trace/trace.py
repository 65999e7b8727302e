"""The main job: probe every concept at every site of every checkpoint, resumable at every unit.

1. Check everything that can be checked (`plan`).   2. Fetch the checkpoints that lack a unit, each while the previous one is computed.
3. Read all missing concepts of a checkpoint in one pass, measure each, and write one part per concept (`executor`).
4. Compute what needs several checkpoints (emergence, drift, corrected p-values) from the parts (`dynamics.summary`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.data.concept import Concept
from ontogeny.dynamics.example_scores import keep_example_scores
from ontogeny.dynamics.summary import summarise_trace
from ontogeny.errors import BadInput
from ontogeny.jobs.audit import audit
from ontogeny.jobs.inputs import as_concepts, as_lineage, output_folder, settings_and_options
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.resumable import check_any_done, job_session
from ontogeny.jobs.run_json import describe_run
from ontogeny.jobs.trace.digests import read_digests, write_digests
from ontogeny.jobs.trace.execution import TraceExecution, concepts_without_floor, untrained_unit
from ontogeny.jobs.trace.losses import keep_losses
from ontogeny.jobs.trace.plan import TracePlan, plan_trace
from ontogeny.jobs.trace.ray_cluster import RayCluster
from ontogeny.jobs.trace.shards import Shard, choose_certificate, gather_shards, wait_for_dying_workers
from ontogeny.jobs.trace.surface import audit_concepts, keep_surface_audits
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import DamagedPart
from ontogeny.storage.lock import run_lock
from ontogeny.storage.repair import remove_damaged_parts, repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.activations.cache import ActivationCache
    from ontogeny.jobs.inputs import ConceptSources, LineageSource

_ATTEMPTS = 2
"""Times that a run is visited and related, if parts turn out to be damaged."""
_GATHER_SECONDS = 3600
"""Seconds for which a shard waits while another one gathers."""


@shows_progress
def trace(
    source: "LineageSource",
    concepts: "ConceptSources",
    out: str | Path | None = None,
    settings: TraceSettings | None = None,
    *,
    model: ModelOptions | None = None,
    delete_behind: bool = False,
    cache: "ActivationCache | None" = None,
    shard: Shard | None = None,
    cluster: RayCluster | None = None,
    freeze: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Trace concepts through the checkpoints of a lineage into a run directory. Finished units are not computed again.

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        concepts: One or several: names of plug-ins, files, data frames, or `Concept` objects.
        out: Run directory, new or of an earlier trace of the same lineage with the same settings; by default a temporary one.
        settings: What is measured, and how.
        model: How models are loaded. Its dtype counts if there are no `settings`, which have their own.
        delete_behind: Delete each downloaded checkpoint after its visit.
        cache: Keeps activations, so that other seeds or probes need no model.
        shard: Visit only this share of the checkpoints; at its end the finished units of all shards are gathered.
        cluster: Visit the checkpoints with Ray workers; this process assigns them and holds the run.
        freeze: Also apply the probe of the first checkpoint at which a concept can be read to all later ones (`frozen_probe_auroc`).
        command: The command line, for run.json.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: nothing can be traced, the run at `out` was made in another way, or another process is writing into it. A session
            without a finished unit leaves `out` as it was.
    """
    if shard and cluster:
        raise BadInput(
            "`shard` must not be set together with a Ray cluster, which divides the work itself: leave it out."
        )
    if freeze and (shard or cluster):
        raise BadInput("`freeze` must not be set for a shard or a Ray cluster: visit the checkpoints in one process.")
    settings, options = settings_and_options(settings, model)
    for name in ("causal", "planes"):
        if getattr(settings, name) and (shard or cluster):
            raise BadInput(
                f"`{name}` must not be set for a shard or a Ray cluster: trace first, then run again in one process."
            )
    out = output_folder(out, "trace")
    digests = read_digests(out)
    plan = plan_trace(
        as_lineage(source, allow_pickle=options.allow_pickle),
        as_concepts(concepts),
        settings,
        allow_pickle=options.allow_pickle,
        tokenizer=options.tokenizer,
        digests=digests,
    )
    run = plan.open_run(out)
    repair_run(run)
    plan = plan.named_as_in(run)
    execution = TraceExecution(options, delete_behind, cache, command, on_progress, cluster, freeze)
    if shard:
        _trace_shard(plan, run, execution, shard)
        return run
    with job_session(run, plan.units.values()):
        wait_for_dying_workers(run)
        certificates = gather_shards(run).certificates
        plan = plan.named_as_in(run)
        for attempt in range(_ATTEMPTS):
            failures = _visit_all(plan, run, execution, plan.missing(run))
            check_any_done(run, plan.units.values(), failures)
            write_digests(run.folder, digests)
            try:
                _summarise(plan, run, execution, run.about, failures, certificates)
                break
            except DamagedPart:
                # Tensors of a large run are read only here. Their checkpoints are visited again.
                if attempt == _ATTEMPTS - 1 or not remove_damaged_parts(run, whole=True):
                    raise
        if settings.causal:
            from ontogeny.jobs.trace.causal import measure_causes

            _add_failures(run, measure_causes(plan, run, execution))
        if settings.planes:
            from ontogeny.jobs.trace.planes import missing_planes

            if missing := missing_planes(plan, run):
                from ontogeny.jobs.trace.plane_reader import measure_planes

                _add_failures(run, measure_planes(plan, run, execution, missing))
    return run


def _add_failures(run: Run, failures: Sequence[Failure]) -> None:
    known = run.about["failures"]
    run.describe(run.about | {"failures": [*known, *(f for f in map(asdict, failures) if f not in known)]})


def _trace_shard(plan: TracePlan, run: Run, execution: TraceExecution, shard: Shard) -> None:
    """Visit the checkpoints of a shard, gather all shards, and summarise what is finished."""
    share = Run(shard.folder(run))
    repair_run(share)
    todo = {c: concepts for c, concepts in plan.missing(run).items() if shard.includes(plan.checkpoints.index(c))}
    todo = {c: [k for k in concepts if not share.done(plan.units[c, k.name])] for c, concepts in todo.items()}
    with run_lock(share.folder):
        floor = concepts_without_floor(plan, share) if shard.index == 0 else []
        floor = [k for k in concepts_without_floor(plan, run) if k in floor]
        failures = _visit_all(plan, share, execution, {c: k for c, k in todo.items() if k}, floor=floor, compact=False)
        share.describe(share.about | {"failures": [asdict(failure) for failure in failures]})
    with run_lock(run.folder, patience=_GATHER_SECONDS):
        gathered = gather_shards(run)
        if any(run.done(unit) for unit in plan.units.values()):
            about = _begin(plan, run, execution)
            _summarise(plan, run, execution, about, gathered.failures, gathered.certificates)


def _visit_all(
    plan: TracePlan,
    run: Run,
    execution: TraceExecution,
    missing: Mapping[Checkpoint, list[Concept]],
    *,
    floor: Sequence[Concept] | None = None,
    compact: bool = True,
) -> list[Failure]:
    _begin(plan, run, execution)
    if floor is None and not execution.cluster:
        floor = concepts_without_floor(plan, run)
        # A run of a watched training has all units and no random initialisation.
        missing = missing or ({plan.checkpoints[0]: []} if floor else {})
    if not missing:
        return list(plan.failures)
    # What reads a model is imported here: a run with nothing to visit needs none of it.
    if execution.cluster:
        from ontogeny.jobs.trace.ray_executor import visit_all_on_ray

        return [*plan.failures, *visit_all_on_ray(plan, run, execution, missing)]
    from ontogeny.jobs.trace.executor import CheckpointExecutor

    visits = CheckpointExecutor(plan, run, execution, floor=floor or (), compact=compact).visit_all(missing)
    return [*plan.failures, *visits]


def _summarise(
    plan: TracePlan,
    run: Run,
    execution: TraceExecution,
    about: dict[str, Any],
    failures: Sequence[Failure],
    certificates: Sequence[Mapping[str, Any]],
) -> None:
    """Compute what needs several checkpoints, and complete run.json, whose content so far is `about`."""
    _drop_floors(plan, run)
    keep_losses(run, plan.lineage.name, plan.checkpoints)

    def report(phase: str, name: str, done: int, total: int, inside: tuple[int, int] = (0, 0)) -> None:
        execution.on_progress(TraceProgress(name, done, total, "", *inside, phase))

    run.compact(partial(report, "merging", "merging parts"))
    summarise_trace(
        run,
        plan.designs,
        plan.lineage.name,
        plan.settings.seed,
        lambda name, done, total, *inside: report("relating", f"relating checkpoints: {name}", done, total, inside),
    )
    keep_example_scores(run, plan.designs, plan.lineage.name, plan.settings.seed, texts=plan.settings.texts)
    failed = {(failure.stage, failure.checkpoint) for failure in failures}
    finished = all((checkpoint.stage, checkpoint.name) in failed for checkpoint in plan.missing(run))
    visits = [checkpoint.name for checkpoint in plan.checkpoints]
    about["parity"] = choose_certificate(about.get("parity"), certificates, visits)
    run.describe(about | {"failures": [asdict(failure) for failure in failures], "finished": finished})


def _begin(plan: TracePlan, run: Run, execution: TraceExecution) -> dict[str, Any]:
    """Write run.json and the surface baselines that the run lacks; returns the content of run.json."""
    before = run.about if run.exists() else None
    concepts, audits = audit_concepts(plan, run, before)
    about = describe_run(
        plan.lineage,
        {checkpoint: weights.bytes for checkpoint, weights in plan.weights.items()},
        concepts,
        settings=asdict(plan.settings),
        device=execution.model.device,
        command=execution.command,
        before=before,
    )
    prints = {checkpoint: weights.fingerprint for checkpoint, weights in plan.weights.items()}
    about["audit"] = audit.audit_for_run(plan.lineage, run, known=prints, allow_pickle=execution.model.allow_pickle)
    if execution.cluster:
        about |= {"executor": "ray", "device": execution.device}
    about["parity"] = before.get("parity") if before else None
    about |= _tokenizer_elsewhere(plan, execution.model)
    # run.json is written first, so that the folder of an interrupted job is recognised as a run.
    run.describe(about)
    keep_surface_audits(plan, run, audits)
    return about


def _tokenizer_elsewhere(plan: TracePlan, options: ModelOptions) -> dict[str, str]:
    """Folder or repository of the tokenizer, where it is not the checkpoints' own."""
    folders = [Path(checkpoint.source) for checkpoint in plan.checkpoints if checkpoint.is_local]
    places = {options.tokenizer_for(folder) for folder in folders}
    others = sorted(str(place) for place in places if place is not None and place not in folders)
    return {"tokenizer": ", ".join(others[:3])} if others else {}


def _drop_floors(plan: TracePlan, run: Run) -> None:
    """Remove the random initialisation of a concept once step 0 of the run itself is measured."""
    for checkpoint in filter(plan.is_untrained, plan.checkpoints):
        for concept in plan.concepts:
            if run.done(plan.units[checkpoint, concept.name]):
                run.drop(untrained_unit(plan, concept))
