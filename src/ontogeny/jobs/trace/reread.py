"""The texts of a run read once more: a run keeps probes and no activations, so what asks for these reads again, at the same checkpoints.

Nothing is taken on trust: texts, weights and settings must give the very unit that the run holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ontogeny.activations.activations import Activations
from ontogeny.activations.capture import capture
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.positions import Position
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.plan import unit_key
from ontogeny.lineage import Checkpoint, fetch_checkpoint, weight_fingerprint
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models import model as models
from ontogeny.models.loading import nearest_tokenizer
from ontogeny.storage.run import Run


def trace_settings_of(run: Run) -> TraceSettings:
    """The settings that a run was made with; the default ones where nothing was traced."""
    told: dict[str, Any] = run.about["settings"]
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return TraceSettings(**told)


def concept_as_traced(run: Run, concept: Concept) -> Concept:
    """The concept as the run read it: its position, its template and how many examples it took are in run.json."""
    told = next((entry for entry in run.about["concepts"] if entry["name"] == concept.name), None)
    if told is None:
        return concept
    seed = trace_settings_of(run).seed
    placed = replace(concept, position=Position.parse(told["position"]))
    whole = [placed, replace(placed, template=True)]
    tried = whole + [one.limited(told["n"], seed) for one in whole if told["n"] < len(one.examples)]
    return next((one for one in tried if one.hash == told["hash"]), placed)


def checkpoint_in_run(run: Run, stage: str | None = None, name: str | None = None) -> Checkpoint:
    """A checkpoint as run.json names it; the last one where nothing is said."""
    every = run.about["lineage"]["checkpoints"]
    found = [one for one in every if stage in (None, one["stage"]) and name in (None, one["name"])]
    if not found:
        raise BadInput(f"{run.folder} has no checkpoint {name} of the stage {stage}. Trace it first.")
    names = ("source", "revision", "commit", "stage", "step", "tokens", "train_seed")
    return Checkpoint(**{field: found[-1][field] for field in names})


def measured_concepts_at(
    run: Run,
    checkpoint: Checkpoint,
    concepts: Sequence[Concept],
    settings: TraceSettings,
    *,
    allow_pickle: bool = False,
) -> dict[str, MeasuredCheckpoint]:
    """What the run holds of these concepts at a checkpoint, of just these texts and weights.

    Raises:
        BadInput: texts, weights or settings are others than when it was traced.
    """
    prints = weight_fingerprint(checkpoint, allow_pickle=allow_pickle)
    visits = {}
    for concept in concepts:
        unit = unit_key(checkpoint, prints, concept, settings)
        found = [visit for visit in measured_checkpoints(run, concept.name) if visit.unit == unit]
        if not found:
            raise BadInput(
                f"{run.folder} holds no {concept.name} of these texts and weights at {checkpoint.name}. "
                "Trace it first, with the same files."
            )
        visits[concept.name] = found[0]
    return visits


def reread_activations(
    checkpoint: Checkpoint,
    concepts: Sequence[Concept],
    settings: TraceSettings,
    sites: str | Sequence[str],
    *,
    tokenizer: Path | None = None,
    device: str = "cpu",
    allow_pickle: bool = False,
) -> Mapping[str, Activations]:
    """The activations of each concept's texts at a checkpoint; questions are not asked again."""
    folder = fetch_checkpoint(checkpoint, allow_pickle=allow_pickle)
    model = models.load_model(
        folder,
        device=device,
        dtype=getattr(torch, settings.dtype),
        tokenizer=tokenizer or nearest_tokenizer(folder),
        allow_pickle=allow_pickle,
    )
    silent = [replace(concept, answers=()) for concept in concepts]
    work, rows = build_workload(silent, model.tokenizer, model.context, truncate=settings.truncate)
    captured = capture(model, work, model.sites(sites))
    return {concept.name: Activations.of(concept, captured, rows[concept.name]) for concept in silent}
