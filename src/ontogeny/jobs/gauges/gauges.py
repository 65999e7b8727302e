"""Gauge job: the gauges of one checkpoint, one unit a concept; the run directory holds the records and the two files of the pack."""

import datetime
import time
from dataclasses import asdict
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.gauges.pack import GaugePack, PackedGauge, PackModel, load_gauges, save_gauges
from ontogeny.gauges.packing import make_packed_gauge
from ontogeny.jobs import resumable
from ontogeny.jobs.gauges.plan import GaugePlan
from ontogeny.jobs.gauges.rows import gauge_rows
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.run_json import describe_environment
from ontogeny.lineage import Lineage
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, open_model, tokenizer_fingerprint
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

_JOB = "gauges"


@shows_progress
def gauges(
    plan: GaugePlan,
    lineage: Lineage,
    out: str | Path,
    *,
    model: ModelOptions | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> GaugePack:
    """Fit, calibrate and check the gauges of a plan, and write them as a pack into `out`.

    A second run of the same plan computes nothing; one with further concepts of the same model adds them.

    Args:
        lineage: The lineage of the checkpoint.
        out: Run directory, new or of gauges of the same checkpoint.
        model: How the model is loaded.
        command: The command line, for run.json.

    Raises:
        BadInput: `out` holds something else, or a concept cannot be a gauge of this model.
    """
    options, lineage = model or ModelOptions(), resumable.single_checkpoint_lineage(lineage, plan.checkpoint)
    run = resumable.open_run_directory(out, lineage, plan.concepts)
    finished = _finished(run, plan)
    units = {plan.unit(concept): concept for concept in plan.concepts}
    missing = [unit for unit in units if unit not in finished or not run.done(unit)]
    if not missing:
        return load_gauges(run.folder)
    settings = {"job": _JOB, "weights": plan.identity.whole, **asdict(plan.settings), "questions": list(plan.questions)}
    sizes = {plan.checkpoint: plan.identity.bytes}
    with resumable.described_session(
        run, lineage, list(units), sizes, [], settings=settings, device=options.device, command=command
    ):
        label = plan.checkpoint.label
        on_progress(TraceProgress(label, 0, 1, "loading"))
        network = open_model(plan.checkpoint, options)
        about = _about(plan, options, command)
        for number, unit in enumerate(missing):
            began, concept = time.perf_counter(), units[unit]

            def report(activity: str, done: int, total: int, number: int = number) -> None:
                on_progress(TraceProgress(label, number, len(missing), activity, done, total))

            member = make_packed_gauge(
                network,
                concept,
                plan.labels[plan.concepts.index(concept)],
                plan.template,
                plan.settings,
                stage=plan.checkpoint.stage,
                step=plan.checkpoint.step,
                questions=plan.questions,
                unit=unit,
                on_activity=report,
            )
            earlier = [key for key, one in finished.items() if one.gauge.label.concept == concept.name]
            finished = {key: one for key, one in finished.items() if key not in earlier} | {unit: member}
            pack = GaugePack(_pack_model(plan, lineage, network), plan.template, tuple(finished.values()), about)
            save_gauges(pack, run.folder)
            run.keep(
                unit, CheckpointStamp.of(lineage.name, unit, plan.checkpoint).on(gauge_rows(member, plan.settings.seed))
            )
            for old in earlier:
                if old != unit:
                    run.drop(old)
            run.log(
                {"checkpoint": plan.checkpoint.name, "concept": concept.name, "seconds": time.perf_counter() - began}
            )
    return load_gauges(run.folder)


def _finished(run: Run, plan: GaugePlan) -> dict[str, PackedGauge]:
    """The gauges that the pack of a run has, by unit."""
    if not run.exists():
        return {}
    repair_run(run)
    own = run.about.get("settings", {})
    if own.get("job") != _JOB or own.get("weights") != plan.identity.whole:
        what = "gauges of another checkpoint" if own.get("job") == _JOB else "another run"
        raise BadInput(f"`out` must be a new folder, got {run.folder} with {what}: choose another one.")
    try:
        pack = load_gauges(run.folder)
    except BadInput:  # a crash between its two files: its gauges are made again
        return {}
    if pack.template != plan.template:
        raise BadInput(f"`template` must be that of the gauges in {run.folder}, got another one: choose another `out`.")
    return {member.unit: member for member in pack.members}


def _pack_model(plan: GaugePlan, lineage: Lineage, network: Model) -> PackModel:
    return PackModel(
        lineage.name,
        plan.checkpoint.name,
        plan.checkpoint.stage,
        plan.checkpoint.step,
        plan.identity.whole,
        tokenizer_fingerprint(network),
        network.layers,
        network.d,
    )


def _about(plan: GaugePlan, options: ModelOptions, command: str | None) -> dict[str, object]:
    environment = describe_environment(options.device, command)
    kept = {key: environment[key] for key in ("ontogeny", "command", "versions")}
    return {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "seed": plan.settings.seed, **kept}
