"""Frozen probes: probes of one checkpoint applied at others, beside the probe fitted at each.

The texts are read again at every checkpoint. `frozen_auroc` is the AUROC of the frozen direction, `frozen_minus_fresh` its difference
to the checkpoint's own probe, `frozen_fpr` and `frozen_tpr` the rates under the frozen threshold (arXiv:2502.03407).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.activations import Activations
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, measured_checkpoints, one_fold_readout
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.monitor.monitor import (
    FALSE_POSITIVE_RATES,
    MONITORED_PROBES,
    HeldOut,
    alarm_rate_rows,
    check_false_positive_rates,
    checkpoints_to_freeze,
    held_out_examples,
)
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.trace.plan import concept_as_traced, trace_settings_of
from ontogeny.jobs.trace.reread import checkpoint_in_run, measured_concepts_at, reread_activations
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.rows import CheckpointStamp, site_rows
from ontogeny.measurements.scores import held_out_scores
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_FROZEN_NOTE = "probe and threshold are frozen"
HeldOutActivations = Mapping[Site, Float[Tensor, "test d"]]


@dataclass(frozen=True, eq=False)
class FrozenProbe:
    """The probes of one concept, frozen at each source and applied at each target."""

    concept: Concept
    design: Design
    held_out: HeldOut
    sources: Sequence[MeasuredCheckpoint]
    targets: Sequence[MeasuredCheckpoint]
    best_sites: Mapping[str, BestSite]
    """By unit of the source: its own best site, since later checkpoints were unknown then."""

    @property
    def sites(self) -> set[Site]:
        return {best.site for best in self.best_sites.values()}


@shows_progress
def monitor_frozen_probes(
    run: Run,
    concepts: Sequence[Concept],
    sources: Sequence[str] = (),
    *,
    rates: Sequence[float] = FALSE_POSITIVE_RATES,
    model: ModelOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[str, ...]:
    """Write the AUROC and alarm rates of frozen probes at the last checkpoint of every stage; returns one unit per concept.

    The rows of a concept replace those of an earlier call.

    Args:
        sources: Checkpoints whose probes are frozen, `base` or `base:500`; by default those of every stage.

    Raises:
        BadInput: no two-class concept, an invalid rate or source, other texts or weights than those of the run, or a locked run.
    """
    check_false_positive_rates(rates)
    settings, model = trace_settings_of(run), model or ModelOptions()
    probes = _frozen_probes(run, concepts, sources, settings)
    keys, traced = _checkpoint_keys(probes), [probe.concept for probe in probes]
    sites = sorted(str(site) for site in set[Site]().union(*(probe.sites for probe in probes)))
    activations: dict[str, HeldOutActivations] = {}
    with run_lock(run.folder):
        for done, (stage, name) in enumerate(keys):
            on_progress(TraceProgress(f"{stage} {name}", done, len(keys), "reading"))
            checkpoint = checkpoint_in_run(run, stage, name)
            units = measured_concepts_at(run, checkpoint, traced, settings, model=model)
            read = reread_activations(checkpoint, traced, settings, sites, model)
            activations |= {
                units[probe.concept.name].unit: _held_out_activations(read[probe.concept.name], probe)
                for probe in probes
            }
        return tuple(_write(run, probe, activations, rates) for probe in probes)


def checkpoints_for_frozen_probes(
    run: Run, concepts: Sequence[Concept], sources: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Stage and name of each checkpoint that `monitor_frozen_probes` would read."""
    return _checkpoint_keys(_frozen_probes(run, concepts, sources, trace_settings_of(run)))


def _frozen_probes(
    run: Run, concepts: Sequence[Concept], sources: Sequence[str], settings: TraceSettings
) -> list[FrozenProbe]:
    probes = [_frozen_probe(run, concept_as_traced(run, c), sources, settings) for c in concepts if c.kind == "binary"]
    if not probes:
        raise BadInput("`concepts` must hold a concept of two classes, got none: name the file of one.")
    return probes


def _checkpoint_keys(probes: Sequence[FrozenProbe]) -> list[tuple[str, str]]:
    """In training order."""
    order = {(v.stage, v.checkpoint): v.order for probe in probes for v in (*probe.sources, *probe.targets)}
    return sorted(order, key=lambda key: order[key])


def _write(run: Run, probe: FrozenProbe, activations: Mapping[str, HeldOutActivations], rates: Sequence[float]) -> str:
    prefix = f"frozen-{content_digest(probe.concept.name)}"
    units = [[visit.unit for visit in visits] for visits in (probe.sources, probe.targets)]
    unit = f"{prefix}-{content_digest([list(rates), *units])}"
    stamp = CheckpointStamp(str(run.about["lineage"]["name"]), unit)
    run.keep(unit, stamp.sign(_frozen_probe_rows(run, probe, activations, rates)))
    run.forget(prefix, but=unit)
    return unit


def checkpoint_named(visits: Sequence[MeasuredCheckpoint], source: str) -> MeasuredCheckpoint:
    """The checkpoint named by stage and step, such as `base:500`; without a step the last one of the stage.

    Raises:
        BadInput: there is no such stage or step.
    """
    stage, colon, step = source.partition(":")
    if stage not in {visit.stage for visit in visits}:
        raise unknown_name("stage", stage, {visit.stage for visit in visits})
    inside = [visit for visit in visits if visit.stage == stage and (not colon or str(visit.step) == step)]
    if not inside:
        known = ", ".join(str(visit.step) for visit in visits if visit.stage == stage)
        raise BadInput(f"{stage} was not traced at step {step}; known: {known}.")
    return inside[-1]


def _frozen_probe(run: Run, concept: Concept, sources: Sequence[str], settings: TraceSettings) -> FrozenProbe:
    visits = measured_checkpoints(run, concept.name)
    if not visits:
        raise BadInput(f"{run.folder} has no {concept.name}: trace it first, or name another concept.")
    targets = checkpoints_to_freeze(visits)
    chosen = [checkpoint_named(visits, source) for source in sources] or targets
    best = {visit.unit: best_site(run, [visit]) for visit in chosen}
    held_out = held_out_examples(run, concept.name, visits[0], one_fold=True)
    return FrozenProbe(concept, make_design(concept, settings), held_out, chosen, targets, best)


def _held_out_activations(activations: Activations, probe: FrozenProbe) -> HeldOutActivations:
    return {
        site: values[at, probe.design.one_fold().split.test].float().cpu()
        for part, values in activations.parts.items()
        for at, site in enumerate(activations.sites[part])
        if site in probe.sites
    }


def _frozen_probe_rows(
    run: Run, probe: FrozenProbe, activations: Mapping[str, HeldOutActivations], rates: Sequence[float]
) -> Iterator[Record]:
    """Each source's probes at the source and at every target."""
    design = probe.design.one_fold()
    for source in probe.sources:
        best = probe.best_sites[source.unit]
        for method in (name for name in MONITORED_PROBES if name in source.methods):
            direction = _direction(run, probe.design, source, method, best)
            at_source = activations[source.unit][best.site] @ direction
            targets = {visit.unit: visit for visit in (source, *probe.targets)}.values()
            for target in sorted(targets, key=lambda visit: visit.order):
                x = activations[target.unit][best.site]
                at_target, fresh = x @ direction, x @ _direction(run, probe.design, target, method, best)
                yield from _auroc_rows(probe.held_out, design, source, target, best.site, method, at_target, fresh)
                for rate in rates:
                    yield from alarm_rate_rows(
                        probe.held_out,
                        source,
                        target,
                        best.site,
                        (at_source, at_target),
                        rate,
                        method=method,
                        prefix="frozen",
                        note=_FROZEN_NOTE,
                    )


def _direction(run: Run, design: Design, visit: MeasuredCheckpoint, method: str, best: BestSite) -> Float[Tensor, " d"]:
    at = visit.sites[best.part].index(best.site)
    return one_fold_readout(run, design, visit.unit, method, best.part, at)[0]


def _auroc_rows(
    held_out: HeldOut,
    design: Design,
    source: MeasuredCheckpoint,
    target: MeasuredCheckpoint,
    site: Site,
    method: str,
    frozen: Float[Tensor, " test"],
    fresh: Float[Tensor, " test"],
) -> Iterator[Record]:
    """AUROC of the frozen direction, and its difference to the fresh one on the same resamples."""
    a, b = (
        held_out_scores("auroc", scores[None, :, None], design.y_test, design.weights, design.test_groups)
        for scores in (frozen, fresh)
    )
    loss, samples = a.value - b.value, (a.samples - b.samples).to(a.value.dtype)
    interval = bootstrap.percentile_interval(loss, samples, groups=design.test_groups)
    about = held_out.row_context(len(design.y_test))
    coords = {"source_stage": source.stage, "source_step": f"{source.step}"}
    for metric, value, ends in (("frozen_auroc", a.value, a.interval), ("frozen_minus_fresh", loss, interval)):
        rows = site_rows(about, metric, value, [site], method=method, interval=ends, note=_FROZEN_NOTE, coords=coords)
        yield from stamp_checkpoint(rows, target)
