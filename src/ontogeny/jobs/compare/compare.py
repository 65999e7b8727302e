"""Compare the stages of a lineage: run each study over all stages and keep it as a unit, so that finished studies are not run again.

Every checkpoint is loaded once for all studies if memory allows; the ledger counts the loads and names the units.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import STUDY_ALIASES, load_study
from ontogeny.jobs.compare.plan import ComparisonPlan
from ontogeny.jobs.compare.stages import StageModels, stamp_rows
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.resumable import Failure, check_any_done, job_session
from ontogeny.jobs.run_json import describe_concept, describe_run
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run


def compare(
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
            records = stamp_rows(study.run(stages, plan.inputs, study.settings(plan.inputs)), plan.checkpoints)
            run.keep(unit, CheckpointStamp(plan.lineage.name, unit).sign(records))
        except BadInput as error:
            failures.append(Failure(name, "", str(error)))
            run.log({"aspect": name, "failed": str(error)})
            continue
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
