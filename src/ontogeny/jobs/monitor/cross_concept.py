"""Trained on one concept, tried on another: does the probe for A tell the classes of B, at the same checkpoint and site?

A probe for lies about cities that reads lies about numbers has found more than cities (arXiv:2310.06824). A run keeps probes and no
activations, so the texts of the concepts are read once more at its last checkpoint; the probes are those that the run keeps.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ontogeny.activations.activations import Activations
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput
from ontogeny.jobs.monitor.monitor import MONITORED_PROBES
from ontogeny.jobs.trace.plan import concept_as_traced, trace_settings_of
from ontogeny.jobs.trace.reread import (
    checkpoint_in_run,
    measured_concepts_at,
    reread_activations,
)
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.rows import CheckpointStamp, RowContext, site_rows
from ontogeny.measurements.scores import held_out_scores
from ontogeny.records import Record
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run


def monitor_cross_concept(
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
    binary = [concept_as_traced(run, concept) for concept in concepts if concept.kind == "binary"]
    if len(binary) < 2:
        raise BadInput(
            "one concept against another takes two concepts of two classes. Name both files: --across A --across B."
        )
    settings, checkpoint = trace_settings_of(run), checkpoint_in_run(run)
    visits = measured_concepts_at(run, checkpoint, binary, settings, allow_pickle=allow_pickle)
    with run_lock(run.folder):
        seen = reread_activations(
            checkpoint,
            binary,
            settings,
            settings.sites,
            tokenizer=tokenizer,
            device=device,
            allow_pickle=allow_pickle,
        )
        designs = {concept.name: make_design(concept, settings) for concept in binary}
        unit = f"across-{content_digest(sorted(visit.unit for visit in visits.values()))}"
        stamp = CheckpointStamp.of(str(run.about["lineage"]["name"]), unit, checkpoint)
        run.keep(
            unit, stamp.on(record for a in visits for record in _cross_concept_rows(run, a, visits[a], seen, designs))
        )
        run.forget("across-", but=unit)
    return unit


def _cross_concept_rows(
    run: Run, trained: str, visit: MeasuredCheckpoint, seen: Mapping[str, Activations], designs: dict[str, Design]
) -> Iterator[Record]:
    """The probes for one concept, at the site where that one is read best, on the held-out examples of all; itself among them."""
    best = best_site(run, [visit])
    for method in (name for name in MONITORED_PROBES if name in visit.methods):
        key = f"{method}/{best.part}"
        kept = run.directions(visit.unit, [f"{key}/direction"])[f"{key}/direction"][best.at]
        for name, other in seen.items():
            on = designs[name]
            activations = other.parts[best.part][best.at, on.split.test].float().cpu()
            scores = (activations @ kept.float())[None]
            scored = held_out_scores("auroc", scores, on.y_test, on.weights, on.test_groups)
            about, coords = RowContext(name, str(on.concept.position), len(on.y_test), 0), {"trained_on": trained}
            yield from site_rows(
                about,
                "transfer_auroc",
                scored.value,
                [best.site],
                method=method,
                interval=scored.interval,
                coords=coords,
            )
