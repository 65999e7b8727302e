"""Cross-concept transfer: AUROC of the probe for one concept on the examples of another, at the same checkpoint and site.

If a probe for lies about cities also reads lies about numbers, it has found more than cities (arXiv:2310.06824). The texts are read again
at the last checkpoint, since a run keeps probes but no activations.
"""

from collections.abc import Iterator, Mapping, Sequence

from ontogeny.activations.activations import Activations
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, one_fold_readout
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput
from ontogeny.jobs.monitor.monitor import MONITORED_PROBES
from ontogeny.jobs.trace.plan import concept_as_traced, trace_settings_of
from ontogeny.jobs.trace.reread import checkpoint_in_run, measured_concepts_at, reread_activations
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.rows import CheckpointStamp, site_rows
from ontogeny.measurements.scores import held_out_scores
from ontogeny.models.loading import ModelOptions
from ontogeny.records import Record
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run


def monitor_cross_concept(run: Run, concepts: Sequence[Concept], *, model: ModelOptions | None = None) -> str:
    """Write `transfer_auroc` of each two-class concept's probes on each other's held-out examples; returns the unit of the rows.

    Raises:
        BadInput: fewer than two such concepts, other texts or weights than those of the run, or a locked run.
    """
    binary = [concept_as_traced(run, concept) for concept in concepts if concept.kind == "binary"]
    if len(binary) < 2:
        raise BadInput(
            f"cross-concept transfer needs two concepts of two classes, got {len(binary)}: name the file of each."
        )
    settings, checkpoint, model = trace_settings_of(run), checkpoint_in_run(run), model or ModelOptions()
    visits = measured_concepts_at(run, checkpoint, binary, settings, model=model)
    designs = {concept.name: make_design(concept, settings) for concept in binary}
    with run_lock(run.folder):
        activations = reread_activations(checkpoint, binary, settings, settings.sites, model)
        unit = f"across-{content_digest(sorted(visit.unit for visit in visits.values()))}"
        stamp = CheckpointStamp.of(str(run.about["lineage"]["name"]), unit, checkpoint)
        rows = (row for name in visits for row in _cross_concept_rows(run, name, visits[name], activations, designs))
        run.keep(unit, stamp.on(rows))
        run.forget("across-", but=unit)
    return unit


def _cross_concept_rows(
    run: Run,
    trained: str,
    visit: MeasuredCheckpoint,
    activations: Mapping[str, Activations],
    designs: dict[str, Design],
) -> Iterator[Record]:
    """The probes for one concept at its best site, on the held-out examples of every concept, its own included."""
    best = best_site(run, [visit])
    for method in (name for name in MONITORED_PROBES if name in visit.methods):
        key = f"{method}/{best.part}/direction"
        whole = run.directions(visit.unit, [key])[key][best.at, :, 0].float()
        for name, design in designs.items():
            direction = whole
            if name == trained:  # the probe of all examples was fitted on these
                direction, _ = one_fold_readout(run, design, visit.unit, method, best.part, best.at)
                design = design.one_fold()
            x = activations[name].parts[best.part][best.at, design.split.test].float().cpu()
            scored = held_out_scores(
                "auroc", (x @ direction)[None, :, None], design.y_test, design.weights, design.test_groups
            )
            about = design.row_context(0)
            coords = {"trained_on": trained}
            yield from site_rows(
                about,
                "transfer_auroc",
                scored.value,
                [best.site],
                method=method,
                interval=scored.interval,
                coords=coords,
            )
