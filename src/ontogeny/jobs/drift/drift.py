"""Drift job: dialogues and probes of each checkpoint under each mitigation, resumed where they stopped."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.data.templates import template_name
from ontogeny.dialogues.instructions import DEFAULT_INSTRUCTIONS, Instruction
from ontogeny.dialogues.measure import measure_drift
from ontogeny.dialogues.prompts import PLAIN_TEMPLATE, dialogue_template
from ontogeny.jobs import resumable
from ontogeny.jobs.drift.plan import DriftSettings, drift_units, plan_drift
from ontogeny.jobs.inputs import as_lineage, output_folder
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.models.reusable import ReusableModel
from ontogeny.records import Record, make_record
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.jobs.inputs import LineageSource


@shows_progress
def drift(
    source: "LineageSource",
    instructions: Sequence[str | Instruction] = DEFAULT_INSTRUCTIONS,
    out: str | Path | None = None,
    settings: DriftSettings | None = None,
    *,
    model: ModelOptions | None = None,
    delete_behind: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Let each checkpoint talk to itself, and measure after each round whether it still keeps to its system prompt.

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        instructions: Names in `ontogeny.dialogues.instructions`, or instructions of one's own.
        out: Run directory, new or of an earlier drift job on the lineage; by default a temporary one.
        settings: Dialogues, mitigations and template.
        model: How models are loaded.
        delete_behind: Delete each downloaded checkpoint after its visit.
        command: The command line, for run.json.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: an unknown instruction, no checkpoint can be read, or a model that is not causal.
    """
    settings, options = settings or DriftSettings(), model or ModelOptions()
    design = plan_drift(instructions, settings)
    lineage = as_lineage(source, allow_pickle=options.allow_pickle)
    run = resumable.open_run_directory(output_folder(out, "drift"), lineage)
    if run.exists():
        repair_run(run)
    readable, failures = resumable.readable_checkpoints(
        lineage, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer
    )
    units = {c: drift_units(c, identity, design, settings, options.dtype) for c, identity in readable.items()}
    every = [unit for own in units.values() for unit in own.values()]
    missing = [c for c, own in units.items() if not all(run.done(unit) for unit in own.values())]
    reusable, done = ReusableModel(options), 0

    def visit(checkpoint: Checkpoint, folder: Path) -> None:
        nonlocal done
        network, _ = reusable.load(folder)
        template = dialogue_template(network, settings.template)
        named = "plain" if template == PLAIN_TEMPLATE else template_name(network.tokenizer, template)
        for mitigation, unit in units[checkpoint].items():
            if run.done(unit):
                continue
            began = time.perf_counter()

            def report(activity: str, part: int, parts: int) -> None:
                on_progress(TraceProgress(checkpoint.label, done, len(missing), activity, part, parts))

            rows = measure_drift(network, design, template, mitigation, report)
            rows.append(_template_row(named, mitigation.name, len(design.agents) * design.dialogues.pairs))
            run.keep(unit, CheckpointStamp.of(lineage.name, unit, checkpoint).on(rows))
            spent = {"mitigation": mitigation.name, "template": named, "seconds": time.perf_counter() - began}
            run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage} | spent)
        done += 1

    sizes = {checkpoint: identity.bytes for checkpoint, identity in readable.items()}
    described = asdict(settings) | {"instructions": {one.name: one.system for one in design.agents}}
    with resumable.described_session(
        run, lineage, every, sizes, failures, settings=described, device=options.device, command=command
    ):
        fetched = resumable.fetch_ahead(missing, options, delete_behind=delete_behind)
        failures += resumable.visit_checkpoints(run, fetched, visit, tolerant=len(lineage.checkpoints) > 1)
        resumable.check_any_done(run, every, failures)
        resumable.drop_replaced(run, every)
    return run


def _template_row(name: str, method: str, dialogues: int) -> Record:
    """The chat template of the dialogues at a checkpoint; 0 for the plain one."""
    coords = {"template": name}
    return make_record("in_template", float(name != "plain"), n=dialogues, method=method, split="all", coords=coords)
