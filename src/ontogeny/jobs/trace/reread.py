"""Read the texts of a finished run again, since a run keeps probes but no activations.

Texts, weights and settings must give exactly the unit that the run holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ontogeny.activations.activations import Activations
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.errors import BadInput
from ontogeny.jobs.resumable import unit_in_run, weight_identity
from ontogeny.jobs.trace.plan import unit_key
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import open_model
from ontogeny.storage.run import Run


def checkpoint_in_run(run: Run, stage: str | None = None, name: str | None = None) -> Checkpoint:
    """A checkpoint that run.json lists, by default the last one.

    Raises:
        BadInput: the run has no such checkpoint.
    """
    entries = run.about["lineage"]["checkpoints"]
    entries = [e for e in entries if stage in (None, e["stage"]) and name in (None, e["name"])]
    if not entries:
        raise BadInput(f"{run.folder} has no checkpoint {name} of the stage {stage}: trace it first.")
    fields = ("source", "revision", "commit", "stage", "step", "tokens", "train_seed")
    entry = entries[-1]
    own = {field: entry[field] for field in fields}
    listed = Checkpoint(**own, subfolder=entry.get("subfolder", ""), data_share=entry.get("data_share"))
    return on_disk(listed, run.folder)


def on_disk(checkpoint: Checkpoint, run: Path) -> Checkpoint:
    """The checkpoint, under a folder above the run if its path was relative to another folder than the present one."""
    source = Path(checkpoint.source)
    if checkpoint.revision or source.is_absolute() or source.exists():
        return checkpoint
    places = (folder / source for folder in run.resolve().parents)
    return next((replace(checkpoint, source=str(place)) for place in places if place.is_dir()), checkpoint)


def measured_concepts_at(
    run: Run,
    checkpoint: Checkpoint,
    concepts: Sequence[Concept],
    settings: TraceSettings,
    *,
    model: ModelOptions | None = None,
) -> dict[str, MeasuredCheckpoint]:
    """The units of these concepts at a checkpoint, of exactly these texts and weights.

    Raises:
        BadInput: texts, weights or settings differ from those of the trace.
    """
    model = model or ModelOptions()
    identity = weight_identity(checkpoint, allow_pickle=model.allow_pickle, tokenizer=model.tokenizer)
    measured = {}
    for concept in concepts:
        keys = [unit_key(checkpoint, weights, concept, settings) for weights in (identity.whole, identity.fingerprint)]
        unit = unit_in_run(run, *keys)
        units = {entry.unit: entry for entry in measured_checkpoints(run, concept.name)}
        if unit not in units:
            raise BadInput(
                f"{run.folder} holds no {concept.name} of these texts and weights at {checkpoint.name}: "
                "trace it first, with the same files."
            )
        measured[concept.name] = units[unit]
    return measured


def reread_activations(
    checkpoint: Checkpoint,
    concepts: Sequence[Concept],
    settings: TraceSettings,
    sites: str | Sequence[str],
    model: ModelOptions | None = None,
) -> Mapping[str, Activations]:
    """The activations of each concept's texts at a checkpoint, without answers to questions; the dtype is that of `settings`."""
    opened = open_model(checkpoint, replace(model or ModelOptions(), dtype=settings.dtype))
    silent = [replace(concept, answers=()) for concept in concepts]
    work, rows = build_workload(silent, opened.tokenizer, opened.context, truncate=settings.truncate)
    captured = capture_workload(opened, work, opened.sites(sites))
    return {concept.name: Activations.of(concept, captured, rows[concept.name]) for concept in silent}
