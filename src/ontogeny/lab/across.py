"""Trained on one concept, tried on another: does the probe for A tell the classes of B, at the same checkpoint and site?

A probe for lies about cities that reads lies about numbers has found more than cities (arXiv:2310.06824). A run keeps probes and no
activations, so the texts of the concepts are read once more at its last checkpoint; the probes are those that the run keeps.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab import scoring
from ontogeny.lab.alone import alone
from ontogeny.lab.design import Design, design
from ontogeny.lab.monitor import METHODS
from ontogeny.lab.rereading import as_traced, checkpoint_of, reread, settings_of, visits_at
from ontogeny.lab.rows import About, Stamp, cells
from ontogeny.lab.seen import Seen
from ontogeny.lab.series import best_site
from ontogeny.lab.visits import Visit
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
    binary = [as_traced(run, concept) for concept in concepts if concept.kind == "binary"]
    if len(binary) < 2:
        raise BadInput(
            "one concept against another takes two concepts of two classes. Name both files: --across A --across B."
        )
    settings, checkpoint = settings_of(run), checkpoint_of(run)
    visits = visits_at(run, checkpoint, binary, settings, allow_pickle=allow_pickle)
    with alone(run.folder):
        seen = reread(
            checkpoint,
            binary,
            settings,
            settings.sites,
            tokenizer=tokenizer,
            device=device,
            allow_pickle=allow_pickle,
        )
        designs = {concept.name: design(concept, settings) for concept in binary}
        unit = f"across-{digest(sorted(visit.unit for visit in visits.values()))}"
        stamp = Stamp.of(str(run.about["lineage"]["name"]), unit, checkpoint)
        run.keep(unit, stamp.on(record for a in visits for record in _tried(run, a, visits[a], seen, designs)))
        run.forget("across-", but=unit)
    return unit


def _tried(
    run: Run, trained: str, visit: Visit, seen: Mapping[str, Seen], designs: dict[str, Design]
) -> Iterator[Record]:
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
