"""The texts of a run read once more: a run keeps probes and no activations, so what asks for these reads again, at the same checkpoints.

Nothing is taken on trust: texts, weights and settings must give the very unit that the run holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ontogeny import model as models
from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab.capture import capture
from ontogeny.lab.job import unit_key
from ontogeny.lab.seen import Seen
from ontogeny.lab.settings import Settings
from ontogeny.lab.texts import workload
from ontogeny.lab.visits import Visit, visited
from ontogeny.lineage import Checkpoint, fetch, fingerprint
from ontogeny.opening import tokenizer_near
from ontogeny.position import Position
from ontogeny.run import Run


def settings_of(run: Run) -> Settings:
    """The settings that a run was made with; the default ones where nothing was traced."""
    told: dict[str, Any] = run.about["settings"]
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Settings(**told)


def as_traced(run: Run, concept: Concept) -> Concept:
    """The concept as the run read it: its position, its template and how many examples it took are in run.json."""
    told = next((entry for entry in run.about["concepts"] if entry["name"] == concept.name), None)
    if told is None:
        return concept
    seed = settings_of(run).seed
    placed = replace(concept, position=Position.parse(told["position"]))
    whole = [placed, replace(placed, template=True)]
    tried = whole + [one.limited(told["n"], seed) for one in whole if told["n"] < len(one.examples)]
    return next((one for one in tried if one.hash == told["hash"]), placed)


def checkpoint_of(run: Run, stage: str | None = None, name: str | None = None) -> Checkpoint:
    """A checkpoint as run.json names it; the last one where nothing is said."""
    every = run.about["lineage"]["checkpoints"]
    found = [one for one in every if stage in (None, one["stage"]) and name in (None, one["name"])]
    if not found:
        raise BadInput(f"{run.folder} has no checkpoint {name} of the stage {stage}. Trace it first.")
    names = ("source", "revision", "commit", "stage", "step", "tokens", "train_seed")
    return Checkpoint(**{field: found[-1][field] for field in names})


def visits_at(
    run: Run, checkpoint: Checkpoint, concepts: Sequence[Concept], settings: Settings, *, allow_pickle: bool = False
) -> dict[str, Visit]:
    """What the run holds of these concepts at a checkpoint, of just these texts and weights.

    Raises:
        BadInput: texts, weights or settings are others than when it was traced.
    """
    prints = fingerprint(checkpoint, allow_pickle=allow_pickle)
    visits = {}
    for concept in concepts:
        unit = unit_key(checkpoint, prints, concept, settings)
        found = [visit for visit in visited(run, concept.name) if visit.unit == unit]
        if not found:
            raise BadInput(
                f"{run.folder} holds no {concept.name} of these texts and weights at {checkpoint.name}. "
                "Trace it first, with the same files."
            )
        visits[concept.name] = found[0]
    return visits


def reread(
    checkpoint: Checkpoint,
    concepts: Sequence[Concept],
    settings: Settings,
    sites: str | Sequence[str],
    *,
    tokenizer: Path | None = None,
    device: str = "cpu",
    allow_pickle: bool = False,
) -> Mapping[str, Seen]:
    """The activations of each concept's texts at a checkpoint; questions are not asked again."""
    folder = fetch(checkpoint, allow_pickle=allow_pickle)
    model = models.load(
        folder,
        device=device,
        dtype=getattr(torch, settings.dtype),
        tokenizer=tokenizer or tokenizer_near(folder),
        allow_pickle=allow_pickle,
    )
    silent = [replace(concept, answers=()) for concept in concepts]
    work, rows = workload(silent, model.tokenizer, model.context, truncate=settings.truncate)
    captured = capture(model, work, model.sites(sites))
    return {concept.name: Seen.of(concept, captured, rows[concept.name]) for concept in silent}
