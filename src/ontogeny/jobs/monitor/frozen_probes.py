"""A probe frozen at one stage and used at the others: does its direction still read the concept, does its threshold still mean the same?

A monitor is trained once, and the model goes on. So the texts are read once more at each of the other checkpoints, and the probe that was
learned there is tried on them beside the one from here: `frozen_auroc` says what the direction is still worth, `frozen_minus_fresh` what
a probe of the checkpoint's own would have added, `frozen_fpr` and `frozen_tpr` what the frozen threshold gives (arXiv:2502.03407).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.activations import Activations
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import (
    BestSite,
    MeasuredCheckpoint,
    measured_checkpoints,
)
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.monitor.monitor import (
    FALSE_POSITIVE_RATES,
    MONITORED_PROBES,
    HeldOut,
    alarm_rate_row,
    check_false_positive_rates,
    checkpoints_to_freeze,
    frozen_threshold_alarms,
    held_out_examples,
    too_few_negatives,
)
from ontogeny.jobs.progress import ProgressCallback as Told
from ontogeny.jobs.progress import TraceProgress, ignore_progress
from ontogeny.jobs.trace.plan import concept_as_traced, trace_settings_of
from ontogeny.jobs.trace.reread import (
    checkpoint_in_run,
    measured_concepts_at,
    reread_activations,
)
from ontogeny.measurements import scores
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.rows import CheckpointStamp, site_rows
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics.separability import resolves_fpr
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
    """One concept: where its probes come from, and where they are tried."""

    concept: Concept
    design: Design
    watch: HeldOut
    sources: Sequence[MeasuredCheckpoint]
    targets: Sequence[MeasuredCheckpoint]
    best: Mapping[str, BestSite]
    """By the unit of the source: the site that its own training examples read best, for nobody knew the later ones."""

    @property
    def sites(self) -> set[Site]:
        return {best.site for best in self.best.values()}


def monitor_frozen_probes(
    run: Run,
    concepts: Sequence[Concept],
    sources: Sequence[str] = (),
    *,
    rates: Sequence[float] = FALSE_POSITIVE_RATES,
    tokenizer: Path | None = None,
    device: str = "cpu",
    allow_pickle: bool = False,
    on_progress: Told = ignore_progress,
) -> tuple[str, ...]:
    """Write how each concept's probes of the `sources` (`base`, `base:500`) fare at the last checkpoint of every stage.

    Without `sources` each of these is one. Gives the units that hold the rows, one a concept; they replace its earlier ones.

    Raises:
        BadInput: no two-class concept, a rate or a stage that is none, other texts or weights than the run was made of, or another
            process at work.
    """
    check_false_positive_rates(rates)
    settings = trace_settings_of(run)
    cases = _frozen_probes(run, concepts, sources, settings)
    places = _checkpoint_keys(cases)
    wanted = sorted(str(site) for site in set[Site]().union(*(case.sites for case in cases)))
    seen: dict[str, HeldOutActivations] = {}
    with run_lock(run.folder):
        for done, (stage, name) in enumerate(places):
            on_progress(TraceProgress(f"{stage} {name}", done, len(places), "reading"))
            here = checkpoint_in_run(run, stage, name)
            units = measured_concepts_at(
                run, here, [case.concept for case in cases], settings, allow_pickle=allow_pickle
            )
            read = reread_activations(
                here,
                [case.concept for case in cases],
                settings,
                wanted,
                tokenizer=tokenizer,
                device=device,
                allow_pickle=allow_pickle,
            )
            seen |= {
                units[case.concept.name].unit: _held_out_activations(read[case.concept.name], case) for case in cases
            }
        return tuple(_write(run, case, seen, rates) for case in cases)


def checkpoints_for_frozen_probes(
    run: Run, concepts: Sequence[Concept], sources: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Stage and name of the checkpoints that `frozen` would read, once each, for all concepts."""
    return _checkpoint_keys(_frozen_probes(run, concepts, sources, trace_settings_of(run)))


def _frozen_probes(
    run: Run, concepts: Sequence[Concept], sources: Sequence[str], settings: TraceSettings
) -> list[FrozenProbe]:
    cases = [_frozen_probe(run, concept_as_traced(run, c), sources, settings) for c in concepts if c.kind == "binary"]
    if not cases:
        raise BadInput("a probe that stands guard takes a concept of two classes. Name its file with -c.")
    return cases


def _checkpoint_keys(cases: Sequence[FrozenProbe]) -> list[tuple[str, str]]:
    """In the order of development."""
    order = {(v.stage, v.checkpoint): v.order for case in cases for v in (*case.sources, *case.targets)}
    return sorted(order, key=lambda place: order[place])


def _write(run: Run, case: FrozenProbe, seen: Mapping[str, HeldOutActivations], rates: Sequence[float]) -> str:
    """The rows of one concept, in place of those of an earlier call."""
    prefix = f"frozen-{content_digest(case.concept.name)}"
    places = [[visit.unit for visit in visits] for visits in (case.sources, case.targets)]
    unit = f"{prefix}-{content_digest([list(rates), *places])}"
    run.keep(
        unit, CheckpointStamp(str(run.about["lineage"]["name"]), unit).sign(_frozen_probe_rows(run, case, seen, rates))
    )
    run.forget(prefix, but=unit)
    return unit


def checkpoint_named(visits: Sequence[MeasuredCheckpoint], source: str) -> MeasuredCheckpoint:
    """The visit that `base:500` names; `base` its last one.

    Raises:
        BadInput: no such stage, or no such step in it.
    """
    stage, colon, step = source.partition(":")
    if stage not in {visit.stage for visit in visits}:
        raise unknown_name("stage", stage, {visit.stage for visit in visits})
    inside = [visit for visit in visits if visit.stage == stage and (not colon or str(visit.step) == step)]
    if not inside:
        known = ", ".join(str(visit.step) for visit in visits if visit.stage == stage)
        raise BadInput(f"{stage} was not traced at step {step}; there are {known}.")
    return inside[-1]


def _frozen_probe(run: Run, concept: Concept, sources: Sequence[str], settings: TraceSettings) -> FrozenProbe:
    visits = measured_checkpoints(run, concept.name)
    if not visits:
        raise BadInput(f"{run.folder} holds no {concept.name}. Trace it first, or name another file with -c.")
    targets = checkpoints_to_freeze(visits)
    told = [checkpoint_named(visits, source) for source in sources] or targets
    best = {visit.unit: best_site(run, [visit]) for visit in told}
    return FrozenProbe(
        concept, make_design(concept, settings), held_out_examples(run, concept.name, visits[0]), told, targets, best
    )


def _held_out_activations(seen: Activations, case: FrozenProbe) -> HeldOutActivations:
    return {
        site: values[at, case.design.split.test].float().cpu()
        for part, values in seen.parts.items()
        for at, site in enumerate(seen.sites[part])
        if site in case.sites
    }


def _frozen_probe_rows(
    run: Run, case: FrozenProbe, seen: Mapping[str, HeldOutActivations], rates: Sequence[float]
) -> Iterator[Record]:
    """Every probe at its own checkpoint and at every target."""
    for source in case.sources:
        best = case.best[source.unit]
        at_source = seen[source.unit][best.site]
        for method in (name for name in MONITORED_PROBES if name in source.methods):
            guard = _probe(run, source, method, best)
            everywhere = {visit.unit: visit for visit in (source, *case.targets)}.values()
            for target in sorted(everywhere, key=lambda visit: visit.order):
                at_target = seen[target.unit][best.site]
                fresh = at_target @ _probe(run, target, method, best)
                coords = {"source_stage": source.stage, "source_step": f"{source.step}"}
                yield from _auroc_rows(case, target, best.site, method, at_target @ guard, fresh, coords)
                for rate in rates:
                    scores = at_source @ guard, at_target @ guard
                    yield from _alarm_rows(case.watch, target, best.site, method, *scores, rate, coords)


def _probe(run: Run, visit: MeasuredCheckpoint, method: str, best: BestSite) -> Float[Tensor, " d"]:
    key = f"{method}/{best.part}/direction"
    vector: Tensor = run.directions(visit.unit, [key])[key][visit.sites[best.part].index(best.site)]
    return vector[:, 0].float()


def _auroc_rows(
    case: FrozenProbe,
    target: MeasuredCheckpoint,
    site: Site,
    method: str,
    guard: Float[Tensor, " test"],
    fresh: Float[Tensor, " test"],
    coords: Mapping[str, str],
) -> Iterator[Record]:
    """What the frozen direction still tells, and how much less that is than what one learned here tells, on the same resamples."""
    on = case.design
    frozen, own = (
        scores.held_out_scores("auroc", s[None, :, None], on.y_test, on.weights, on.test_groups) for s in (guard, fresh)
    )
    lost, samples = frozen.value - own.value, frozen.samples - own.samples
    less = bootstrap.percentile_interval(lost, samples.to(lost.dtype), groups=on.test_groups)
    for metric, value, ends in (("frozen_auroc", frozen.value, frozen.interval), ("frozen_minus_fresh", lost, less)):
        about = case.watch.about(len(on.y_test))
        rows = site_rows(about, metric, value, [site], method=method, interval=ends, note=_FROZEN_NOTE, coords=coords)
        yield from stamp_checkpoint(rows, target)


def _alarm_rows(
    watch: HeldOut,
    target: MeasuredCheckpoint,
    site: Site,
    method: str,
    before: Float[Tensor, " test"],
    now: Float[Tensor, " test"],
    rate: float,
    coords: Mapping[str, str],
) -> Iterator[Record]:
    """False alarms and catches here, each half of the groups under the threshold that the other half's negatives set there."""
    fewest = watch.fewest
    raised = frozen_threshold_alarms(before, now, watch, rate) if resolves_fpr(fewest, rate) else None
    told = {"at": f"{rate:g}", **coords}
    for metric, group in (("frozen_fpr", ~watch.y), ("frozen_tpr", watch.y)):
        yield alarm_rate_row(
            watch, target, site, metric, method, raised, group, told, _FROZEN_NOTE, too_few_negatives(fewest, rate)
        )
