"""Compare the stages of a lineage: run each study over all stages and keep it as a unit, so that finished studies are not run again.

Every checkpoint is loaded once for all studies if memory allows; the ledger counts the loads and names the units.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import STUDY_ALIASES, StudyInputs, load_study, select_studies
from ontogeny.jobs.compare.plan import ComparisonPlan, plan_comparison
from ontogeny.jobs.compare.stages import StageModels, drop_duplicate_checkpoints, select_stages, stamp_rows
from ontogeny.jobs.inputs import as_lineage, output_folder
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.resumable import check_any_done, job_session
from ontogeny.jobs.run_json import describe_concept, describe_run
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.plugins import list_plugins
from ontogeny.storage.failures import Failure
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.jobs.inputs import LineageSource


@shows_progress
def compare(
    source: "LineageSource",
    inputs: StudyInputs,
    out: str | Path | None = None,
    studies: str | None = None,
    *,
    stages: str | None = None,
    model: ModelOptions | None = None,
    memory: int | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Run studies over the stages of a lineage: what did SFT and preference training keep and change?

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        inputs: Texts that the studies read.
        out: Run directory, new or of an earlier comparison; by default a temporary one.
        studies: Names separated by commas, such as `knowledge,refusal`; by default every study whose texts are given.
        stages: Stages that are compared, each with a selector: `pretrain:last,sft:*`; by default the last checkpoint of every stage.
        model: How models are loaded.
        memory: Bytes that loaded models may take together; by default half of the system's memory.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: fewer than two stages with different weights, no study can be run, or `out` holds another run.
    """
    options = model or ModelOptions()
    lineage = as_lineage(source, allow_pickle=options.allow_pickle)
    selected = select_stages(lineage, stages or ",".join(stage.name for stage in lineage.stages))
    distinct, _ = drop_duplicate_checkpoints(selected, allow_pickle=options.allow_pickle)
    checkpoints = distinct if len(distinct) > 1 else selected
    possible = ",".join(
        name for name in list_plugins("studies", defining="INPUTS") if not load_study(name).needs(inputs)
    )
    names = select_studies(possible if studies is None else studies, inputs)
    plan = plan_comparison(lineage, checkpoints, inputs, names, options)
    return run_comparison(plan, output_folder(out, "compare"), memory=memory, on_progress=on_progress)


def run_comparison(
    plan: ComparisonPlan,
    out: str | Path,
    *,
    memory: int | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Run the studies that the run at `out` lacks. One that fails is listed in `failures` of run.json, and the others go on.

    Args:
        memory: Bytes that loaded models may take together; by default half of the system's memory.
        command: The command line, for run.json.

    Raises:
        BadInput: no study can be run, `out` holds another run, or another process is writing into it.
    """
    run = plan.open_run(out)
    repair_run(run)
    plan = plan.named_as_in(run)
    units = plan.units.values()
    with job_session(run, units):
        run.describe(_describe(plan, run, command))
        failures = _run_studies(plan, run, memory, on_progress)
        check_any_done(run, units, failures)
        ended = {"failures": [asdict(failure) for failure in failures], "finished": True}
        run.describe(_describe(plan, run, command) | ended)
    return run


def _run_studies(
    plan: ComparisonPlan, run: Run, memory: int | None, on_progress: ProgressCallback
) -> Sequence[Failure]:
    """Run the missing studies; returns those that failed."""
    failures = []
    stages = StageModels(plan.checkpoints, plan.options, budget=memory)
    missing, n = plan.missing(run), len(stages)
    for number, name in enumerate(missing):
        began, before, read = time.perf_counter(), stages.loads.copy(), dict[str, None]()

        def report(stage: str, name: str = name, number: int = number, read: dict[str, None] = read) -> None:
            read[stage] = None
            on_progress(TraceProgress(f"{name} · {stage}", number * n + len(read) - 1, len(missing) * n, ""))

        stages.on_access = report
        study, unit = load_study(name), plan.units[name]
        try:
            records = list(stamp_rows(study.run(stages, plan.inputs, study.settings(plan.inputs)), plan.checkpoints))
        except BadInput as error:
            failures.append(Failure(name, "", str(error)))
            run.log({"aspect": name, "failed": str(error)})
            continue
        run.keep(
            unit, CheckpointStamp(plan.lineage.name, unit).sign(records)
        )  # a full disk is not a fault of the study
        run.forget(f"compare-{study.unit}-", but=unit)
        run.log(
            {
                "aspect": name,
                "unit": unit,
                "stages": list(plan.checkpoints),
                "loads": dict(stages.loads - before),
                "elapsed": round(time.perf_counter() - began, 3),
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )
    return failures


def _describe(plan: ComparisonPlan, run: Run, command: str | None) -> dict[str, Any]:
    """The content of run.json, with the preflight."""
    inputs, checkpoints = plan.inputs, plan.checkpoints
    before: dict[str, str] = run.about["compare"]["units"] if run.exists() else {}
    before = {STUDY_ALIASES.get(name, name): unit for name, unit in before.items()}
    sources = [Path(c.source).parent.name if c.is_local else c.source for c in checkpoints.values()]
    settings = {
        "seed": inputs.seed,
        "dtype": plan.options.dtype,
        "template": "own" if inputs.template is True else inputs.template or "none",
        "pairing": inputs.pairing,
        "question": asdict(inputs.question) if inputs.question else "by tokenizer",
        "neutral texts": len(inputs.neutral),
        "questions": len(inputs.questions),
    }
    about = describe_run(
        plan.lineage,
        {checkpoint: plan.weight_bytes[name] for name, checkpoint in checkpoints.items()},
        [describe_concept(c) for c in [*inputs.statements, *([inputs.requests] if inputs.requests else [])]],
        settings=settings,
        device=plan.options.device,
        command=command,
        source=", ".join(dict.fromkeys(sources)),
    )
    about["compare"] = {
        "stages": list(checkpoints),
        "aspects": list(plan.studies),
        "units": before | {study: unit for study, unit in plan.units.items() if run.done(unit)},
        "preflight": plan.preflight.as_json(),
    }
    return about
