"""Lens job: the lenses of each checkpoint, resumed where it stopped."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.jobs import resumable
from ontogeny.jobs.inputs import as_lineage, output_folder
from ontogeny.jobs.lens.measure import lens_rows
from ontogeny.jobs.lens.plan import LensSettings, chosen_texts, lens_unit
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import open_model
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.jobs.inputs import LineageSource


@shows_progress
def lens(
    source: "LineageSource",
    texts: Sequence[str],
    out: str | Path | None = None,
    settings: LensSettings | None = None,
    *,
    model: ModelOptions | None = None,
    delete_behind: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Measure at each layer of each checkpoint how far a lens reads the model's own output there.

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        texts: At least four; each is scored by a lens that was fitted on the other half of them.
        out: Run directory, new or of an earlier lens job on the lineage; by default a temporary one.
        settings: Which lenses, and how much is read.
        model: How models are loaded.
        delete_behind: Delete each downloaded checkpoint after its visit.
        command: The command line, for run.json.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: there are too few texts, no checkpoint can be read, or a model is not causal.
    """
    settings, options = settings or LensSettings(), model or ModelOptions()
    lineage, texts = as_lineage(source, allow_pickle=options.allow_pickle), chosen_texts(texts, settings)
    run = resumable.open_run_directory(output_folder(out, "lens"), lineage)
    if run.exists():
        repair_run(run)
    readable, failures = resumable.readable_checkpoints(
        lineage, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer
    )
    units = {c: lens_unit(identity, texts, settings, [c.stage, c.step, c.name]) for c, identity in readable.items()}
    missing = [checkpoint for checkpoint, unit in units.items() if not run.done(unit)]
    sizes = {checkpoint: identity.bytes for checkpoint, identity in readable.items()}
    with resumable.described_session(
        run, lineage, units.values(), sizes, failures, settings=asdict(settings), device=options.device, command=command
    ):
        done = 0

        def visit(checkpoint: Checkpoint, folder: Path) -> None:
            nonlocal done
            began = time.perf_counter()
            on_progress(TraceProgress(checkpoint.label, done, len(missing), "reading lenses"))
            stamp = CheckpointStamp.of(lineage.name, units[checkpoint], checkpoint)
            run.keep(units[checkpoint], stamp.on(lens_rows(open_model(folder, options), texts, settings)))
            done += 1
            run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "seconds": time.perf_counter() - began})

        fetched = resumable.fetch_ahead(missing, options, delete_behind=delete_behind)
        failures += resumable.visit_checkpoints(run, fetched, visit, tolerant=len(lineage.checkpoints) > 1)
        resumable.check_any_done(run, units.values(), failures)
        resumable.drop_replaced(run, units.values())
    return run
