"""A probe frozen at one stage and used at the others: does its direction still read the concept, does its threshold still mean the same?

A monitor is trained once, and the model goes on. So the texts are read once more at each of the other checkpoints, and the probe that was
learned there is tried on them beside the one from here: `frozen_auroc` says what the direction is still worth, `frozen_minus_fresh` what
a probe of the checkpoint's own would have added, `frozen_fpr` and `frozen_tpr` what the frozen threshold gives (arXiv:2502.03407).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.concept import Concept
from ontogeny.errors import BadInput, unknown
from ontogeny.lab import scoring
from ontogeny.lab.alone import alone
from ontogeny.lab.design import Design, design
from ontogeny.lab.monitor import METHODS, RATES, Watch, alarms, check_rates, moments, realised, too_few, watch_of
from ontogeny.lab.progress import Progress, silent
from ontogeny.lab.progress import Watch as Told
from ontogeny.lab.rereading import as_traced, checkpoint_of, reread, settings_of, visits_at
from ontogeny.lab.rows import Stamp, cells
from ontogeny.lab.seen import Seen
from ontogeny.lab.series import best_site
from ontogeny.lab.settings import Settings
from ontogeny.lab.visits import Best, Visit, at_visit, visited
from ontogeny.metrics.separability import resolves
from ontogeny.records import Record
from ontogeny.run import Run
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.store import digest

NOTE = "probe and threshold are frozen"
Activations = Mapping[Site, Float[Tensor, "test d"]]


@dataclass(frozen=True, eq=False)
class Case:
    """One concept: where its probes come from, and where they are tried."""

    concept: Concept
    design: Design
    watch: Watch
    sources: Sequence[Visit]
    targets: Sequence[Visit]
    best: Mapping[str, Best]
    """By the unit of the source: the site that its own training examples read best, for nobody knew the later ones."""

    @property
    def sites(self) -> set[Site]:
        return {best.site for best in self.best.values()}


def frozen(
    run: Run,
    concepts: Sequence[Concept],
    sources: Sequence[str] = (),
    *,
    rates: Sequence[float] = RATES,
    tokenizer: Path | None = None,
    device: str = "cpu",
    allow_pickle: bool = False,
    on_progress: Told = silent,
) -> tuple[str, ...]:
    """Write how each concept's probes of the `sources` (`base`, `base:500`) fare at the last checkpoint of every stage.

    Without `sources` each of these is one. Gives the units that hold the rows, one a concept; they replace its earlier ones.

    Raises:
        BadInput: no two-class concept, a rate or a stage that is none, other texts or weights than the run was made of, or another
            process at work.
    """
    check_rates(rates)
    settings = settings_of(run)
    cases = _cases(run, concepts, sources, settings)
    places = _places(cases)
    wanted = sorted(str(site) for site in set[Site]().union(*(case.sites for case in cases)))
    seen: dict[str, Activations] = {}
    with alone(run.folder):
        for done, (stage, name) in enumerate(places):
            on_progress(Progress(f"{stage} {name}", done, len(places), "reading"))
            here = checkpoint_of(run, stage, name)
            units = visits_at(run, here, [case.concept for case in cases], settings, allow_pickle=allow_pickle)
            read = reread(
                here,
                [case.concept for case in cases],
                settings,
                wanted,
                tokenizer=tokenizer,
                device=device,
                allow_pickle=allow_pickle,
            )
            seen |= {units[case.concept.name].unit: _held_out(read[case.concept.name], case) for case in cases}
        return tuple(_write(run, case, seen, rates) for case in cases)


def to_read(run: Run, concepts: Sequence[Concept], sources: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Stage and name of the checkpoints that `frozen` would read, once each, for all concepts."""
    return _places(_cases(run, concepts, sources, settings_of(run)))


def _cases(run: Run, concepts: Sequence[Concept], sources: Sequence[str], settings: Settings) -> list[Case]:
    cases = [_case(run, as_traced(run, c), sources, settings) for c in concepts if c.kind == "binary"]
    if not cases:
        raise BadInput("a probe that stands guard takes a concept of two classes. Name its file with -c.")
    return cases


def _places(cases: Sequence[Case]) -> list[tuple[str, str]]:
    """In the order of development."""
    order = {(v.stage, v.checkpoint): v.order for case in cases for v in (*case.sources, *case.targets)}
    return sorted(order, key=lambda place: order[place])


def _write(run: Run, case: Case, seen: Mapping[str, Activations], rates: Sequence[float]) -> str:
    """The rows of one concept, in place of those of an earlier call."""
    prefix = f"frozen-{digest(case.concept.name)}"
    places = [[visit.unit for visit in visits] for visits in (case.sources, case.targets)]
    unit = f"{prefix}-{digest([list(rates), *places])}"
    run.keep(unit, Stamp(str(run.about["lineage"]["name"]), unit).sign(_tried(run, case, seen, rates)))
    run.forget(prefix, but=unit)
    return unit


def chosen(visits: Sequence[Visit], source: str) -> Visit:
    """The visit that `base:500` names; `base` its last one.

    Raises:
        BadInput: no such stage, or no such step in it.
    """
    stage, colon, step = source.partition(":")
    if stage not in {visit.stage for visit in visits}:
        raise unknown("stage", stage, {visit.stage for visit in visits})
    inside = [visit for visit in visits if visit.stage == stage and (not colon or str(visit.step) == step)]
    if not inside:
        known = ", ".join(str(visit.step) for visit in visits if visit.stage == stage)
        raise BadInput(f"{stage} was not traced at step {step}; there are {known}.")
    return inside[-1]


def _case(run: Run, concept: Concept, sources: Sequence[str], settings: Settings) -> Case:
    visits = visited(run, concept.name)
    if not visits:
        raise BadInput(f"{run.folder} holds no {concept.name}. Trace it first, or name another file with -c.")
    targets = moments(visits)
    told = [chosen(visits, source) for source in sources] or targets
    best = {visit.unit: best_site(run, [visit]) for visit in told}
    return Case(concept, design(concept, settings), watch_of(run, concept.name, visits[0]), told, targets, best)


def _held_out(seen: Seen, case: Case) -> Activations:
    return {
        site: values[at, case.design.split.test].float().cpu()
        for part, values in seen.parts.items()
        for at, site in enumerate(seen.sites[part])
        if site in case.sites
    }


def _tried(run: Run, case: Case, seen: Mapping[str, Activations], rates: Sequence[float]) -> Iterator[Record]:
    """Every probe at its own checkpoint and at every target."""
    for source in case.sources:
        best = case.best[source.unit]
        at_source = seen[source.unit][best.site]
        for method in (name for name in METHODS if name in source.methods):
            guard = _probe(run, source, method, best)
            everywhere = {visit.unit: visit for visit in (source, *case.targets)}.values()
            for target in sorted(everywhere, key=lambda visit: visit.order):
                at_target = seen[target.unit][best.site]
                fresh = at_target @ _probe(run, target, method, best)
                coords = {"source_stage": source.stage, "source_step": f"{source.step}"}
                yield from _worth(case, target, best.site, method, at_target @ guard, fresh, coords)
                for rate in rates:
                    scores = at_source @ guard, at_target @ guard
                    yield from _kept(case.watch, target, best.site, method, *scores, rate, coords)


def _probe(run: Run, visit: Visit, method: str, best: Best) -> Float[Tensor, " d"]:
    key = f"{method}/{best.part}/direction"
    vector: Tensor = run.directions(visit.unit, [key])[key][visit.sites[best.part].index(best.site)]
    return vector[:, 0].float()


def _worth(
    case: Case,
    target: Visit,
    site: Site,
    method: str,
    guard: Float[Tensor, " test"],
    fresh: Float[Tensor, " test"],
    coords: Mapping[str, str],
) -> Iterator[Record]:
    """What the frozen direction still tells, and how much less that is than what one learned here tells, on the same resamples."""
    on, both = case.design, torch.stack([guard, fresh])[..., None]
    value = scoring.point("auroc", both, on.y_test)
    drawn = scoring.samples("auroc", both, on.y_test, on.weights)
    ends = scoring.interval("auroc", value[:1], drawn[:, :1], on.test_groups)
    lost, drawn = value[:1] - value[1:], drawn[:, :1] - drawn[:, 1:]
    less = bootstrap.interval(lost, drawn.to(lost.dtype), groups=on.test_groups)
    for metric, told, inside in (("frozen_auroc", value[:1], ends), ("frozen_minus_fresh", lost, less)):
        about = case.watch.about(len(on.y_test))
        yield from at_visit(
            target, cells(about, metric, told, [site], method=method, interval=inside, note=NOTE, coords=coords)
        )


def _kept(
    watch: Watch,
    target: Visit,
    site: Site,
    method: str,
    before: Float[Tensor, " test"],
    now: Float[Tensor, " test"],
    rate: float,
    coords: Mapping[str, str],
) -> Iterator[Record]:
    """False alarms and catches here, each half of the groups under the threshold that the other half's negatives set there."""
    fewest = watch.fewest
    raised = alarms(before, now, watch, rate) if resolves(fewest, rate) else None
    told = {"at": f"{rate:g}", **coords}
    for metric, group in (("frozen_fpr", ~watch.y), ("frozen_tpr", watch.y)):
        yield realised(watch, target, site, metric, method, raised, group, told, NOTE, too_few(fewest, rate))
