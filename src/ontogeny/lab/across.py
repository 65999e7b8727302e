"""Trained on one concept, tried on another: does the probe for A tell the classes of B, at the same checkpoint and site?

A probe for lies about cities that reads lies about numbers has found more than cities (arXiv:2310.06824). A run keeps probes and no
activations, so the texts of the concepts are read once more at its last checkpoint; the probes are those that the run keeps.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ontogeny import model as models
from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab import scoring
from ontogeny.lab.alone import alone
from ontogeny.lab.capture import capture
from ontogeny.lab.design import Design, design
from ontogeny.lab.job import unit_key
from ontogeny.lab.monitor import METHODS
from ontogeny.lab.rows import About, Stamp, cells
from ontogeny.lab.seen import Seen
from ontogeny.lab.series import best_site
from ontogeny.lab.settings import Settings
from ontogeny.lab.texts import workload
from ontogeny.lab.visits import Visit, visited
from ontogeny.lineage import Checkpoint, fetch, fingerprint
from ontogeny.records import Record
from ontogeny.run import Run
from ontogeny.store import digest


def across(
    run: Run,
    concepts: Sequence[Concept],
    *,
    tokenizer: Path | None = None,
    device: str = "cpu",
    allow_pickle: bool = False,
) -> str:
    """Write `transfer_auroc` of each two-class concept's probes on each other's held-out examples; returns the unit that holds the rows.

    Raises:
        BadInput: fewer than two such concepts, other texts or weights than the run was made of, or another process at work.
    """
    binary = [concept for concept in concepts if concept.kind == "binary"]
    if len(binary) < 2:
        raise BadInput("one concept against another takes two concepts of two classes. Name their files with -c.")
    told: dict[str, Any] = run.about["settings"]
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    settings = Settings(**told)
    checkpoint = _last(run)
    folder = fetch(checkpoint, allow_pickle=allow_pickle)
    prints = fingerprint(checkpoint, allow_pickle=allow_pickle)
    visits = {}
    for concept in binary:
        unit = unit_key(checkpoint, prints, concept, settings)
        found = [visit for visit in visited(run, concept.name) if visit.unit == unit]
        if not found:
            raise BadInput(
                f"{run.folder} holds no {concept.name} of these texts and weights at {checkpoint.name}. "
                "Trace it first, with the same files."
            )
        visits[concept.name] = found[0]
    with alone(run.folder):
        model = models.load(
            folder,
            device=device,
            dtype=getattr(torch, settings.dtype),
            tokenizer=tokenizer or _tokenizer(folder),
            allow_pickle=allow_pickle,
        )
        work, rows = workload(binary, model.tokenizer, model.context, truncate=settings.truncate)
        captured = capture(model, work, model.sites(settings.sites))
        seen = {concept.name: Seen.of(concept, captured, rows[concept.name]) for concept in binary}
        designs = {concept.name: design(concept, settings) for concept in binary}
        unit = f"across-{digest(sorted(visit.unit for visit in visits.values()))}"
        stamp = Stamp(
            str(run.about["lineage"]["name"]),
            unit,
            checkpoint.stage,
            checkpoint.step,
            checkpoint.tokens,
            checkpoint.revision or checkpoint.name,
            checkpoint.train_seed,
        )
        run.keep(unit, stamp.on(record for a in visits for record in _tried(run, a, visits[a], seen, designs)))
        run.forget("across-", but=unit)
    return unit


def _tried(run: Run, trained: str, visit: Visit, seen: dict[str, Seen], designs: dict[str, Design]) -> Iterator[Record]:
    """The probes for one concept, at the site where that one is read best, on the held-out examples of all; itself among them."""
    best = best_site(run, [visit])
    for method in (name for name in METHODS if name in visit.methods):
        key = f"{method}/{best.part}"
        kept = run.directions(visit.unit, [f"{key}/direction"])[f"{key}/direction"][best.at]
        for name, other in seen.items():
            on = designs[name]
            activations = other.parts[best.part][best.at, on.split.test].float().cpu()
            scores = (activations @ kept.float())[None]
            value = scoring.point("auroc", scores, on.y_test)
            ends = scoring.interval(
                "auroc", value, scoring.samples("auroc", scores, on.y_test, on.weights), on.test_groups
            )
            about = About(name, str(on.concept.position), len(on.y_test), 0)
            yield from cells(
                about,
                "transfer_auroc",
                value,
                [best.site],
                method=method,
                interval=ends,
                coords={"trained_on": trained},
            )


def _last(run: Run) -> Checkpoint:
    """As run.json names it."""
    one = run.about["lineage"]["checkpoints"][-1]
    names = ("source", "revision", "commit", "stage", "step", "tokens", "train_seed")
    return Checkpoint(**{name: one[name] for name in names})


def _tokenizer(folder: Path) -> Path | None:
    """The checkpoint's own, else that of the folder above: a trainer saves it once, on top."""
    places = (folder, folder.absolute().parent, folder.resolve().parent)
    has = [place for place in places if any((place / n).is_file() for n in ("tokenizer.json", "tokenizer_config.json"))]
    return has[0] if has else None
