"""Edit job: one unit, the edits of one checkpoint; the run directory holds the records and, in `model/`, the edited model."""

import time
from dataclasses import asdict, replace
from pathlib import Path

from ontogeny.data.tokenization import encode_texts
from ontogeny.editing.measured import edit_and_measure
from ontogeny.editing.session import EditSession
from ontogeny.errors import BadInput
from ontogeny.jobs import resumable
from ontogeny.jobs.edit.plan import EditPlan
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.lineage import Lineage
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, open_model
from ontogeny.steering.bake import bake_edits, save_baked
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

EDITED_MODEL_FOLDER = "model"
"""Folder of the edited model in the run directory."""


@shows_progress
def edit(
    plan: EditPlan,
    lineage: Lineage,
    out: str | Path,
    *,
    model: ModelOptions | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Edit facts in the weights of a checkpoint, measure, and save the edited model in `out/model`.

    A second run of the same plan computes nothing.

    Args:
        lineage: The lineage of the checkpoint.
        out: Run directory, new or of the same edit.
        model: How the model is loaded.
        command: The command line, for run.json.

    Raises:
        BadInput: `out` holds something else, tokens that do not align, or a model that cannot be edited.
    """
    options = model or ModelOptions()
    lineage = resumable.single_checkpoint_lineage(lineage, plan.checkpoint)
    run = resumable.open_run_directory(out, lineage)
    if run.exists():
        repair_run(run)
        if run.about.get("settings", {}).get("unit") not in (None, plan.unit):
            raise BadInput(f"`out` must be a new folder, got {run.folder} with another edit: choose another one.")
    folder = run.folder / EDITED_MODEL_FOLDER
    if run.done(plan.unit) and folder.is_dir():
        return run
    settings = {"unit": plan.unit, **asdict(plan.settings), "facts": [asdict(fact) for fact in plan.facts]}
    sizes = {plan.checkpoint: plan.identity.bytes}
    with resumable.described_session(
        run, lineage, [plan.unit], sizes, [], settings=settings, device=options.device, command=command
    ):
        began = time.perf_counter()

        def report(activity: str, done: int, total: int) -> None:
            on_progress(TraceProgress(plan.checkpoint.label, 0, 1, activity, done, total))

        report("loading", 0, 1)
        network = open_model(plan.checkpoint, options)
        session = EditSession(network, _fitting(network, plan.texts), plan.settings, prefixes=plan.prefixes)
        prompts = replace(plan.prompts, texts=tuple(_fitting(network, plan.prompts.texts)))
        rows = edit_and_measure(
            session,
            plan.facts,
            prompts,
            together=plan.together,
            controls=plan.controls,
            seed=plan.seed,
            on_activity=report,
        )
        report("saving the edited model", 1, 1)
        save_baked(bake_edits(network, session.edits), folder)
        run.keep(plan.unit, CheckpointStamp.of(lineage.name, plan.unit, plan.checkpoint).on(rows))
        run.log(
            {"checkpoint": plan.checkpoint.name, "stage": plan.checkpoint.stage, "seconds": time.perf_counter() - began}
        )
    return run


def _fitting(model: Model, texts: tuple[str, ...]) -> list[str]:
    """The texts of 2 tokens up to the context; longer ones would be cut in the middle of a sentence."""
    rows = encode_texts(model.tokenizer, texts, [None] * len(texts)) if texts else []
    kept = [text for text, row in zip(texts, rows, strict=True) if 2 <= len(row.ids) <= model.context]
    if texts and not kept:
        raise BadInput(
            f"`texts` must have 2 to {model.context} tokens each, got none of {len(texts)} that has: cut them into lines."
        )
    return kept
