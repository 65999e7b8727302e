"""Can a probe stand guard? What it catches at a false-alarm rate that one could live with, and whether its threshold holds elsewhere.

Computed from the held-out scores that a run keeps, so no model is loaded. A threshold is chosen on one half of the held-out groups and
tried on the other, and the reverse: chosen and tried on the same negatives it would meet its rate by construction. Recall at 1 % false
positives is what monitors of deployed models are judged by (arXiv:2502.03407).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import (
    MeasuredCheckpoint,
    common_methods,
    measured_checkpoints,
)
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.plan import trace_settings_of
from ontogeny.measurements.rows import CheckpointStamp, RowContext, site_rows
from ontogeny.metrics.separability import resolves_fpr, threshold_at_fpr, tpr_at_fpr
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.statistics.bootstrap import Interval
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run, sql_text

MONITORED_PROBES = ("logistic", "mass_mean")
FALSE_POSITIVE_RATES = (0.01, 0.05)
_RESAMPLES = 1000
_MAX_FROZEN_CHECKPOINTS = 8
"""Checkpoints of a matrix, where there is but one stage."""
_OWN_PROBE_NOTE = "the threshold is frozen, the probe is the checkpoint's own"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out examples of a concept: the same at every checkpoint."""

    concept: str
    position: str
    y: Bool[Tensor, " example"]
    groups: Int[Tensor, " example"]
    weights: Float[Tensor, "sample example"]
    fold: Int[Tensor, " example"]
    """Which half of the groups: thresholds are chosen on one and tried on the other."""
    seed: int

    @property
    def negatives(self) -> int:
        return int((~self.y).sum())

    @property
    def fewest(self) -> int:
        """Negatives of the smaller half."""
        return min(int((~self.y & (self.fold == half)).sum()) for half in (0, 1))

    def about(self, n: int) -> RowContext:
        """What its rows have in common; `n` examples stand behind each."""
        return RowContext(self.concept, self.position, n, self.seed)


def monitor(run: Run, rates: Sequence[float] = FALSE_POSITIVE_RATES) -> str:
    """Write the rows of all concepts into the run; returns the unit that holds them. They replace those of an earlier call.

    Raises:
        BadInput: a rate that is none, a run without two-class concepts or without the labels of its scores, or another process at work.
    """
    check_false_positive_rates(rates)
    binary = [str(concept["name"]) for concept in run.about.get("concepts", ()) if concept.get("kind") == "binary"]
    found = {name: visits for name in binary if (visits := measured_checkpoints(run, name))}
    if not found:
        raise BadInput(f"{run.folder} holds no measured concept of two classes: a false-positive rate needs negatives.")
    with run_lock(run.folder):
        records = [record for name, visits in found.items() for record in monitor_rows(run, name, visits, rates)]
        unit = f"monitor-{content_digest([list(rates), sorted(visit.unit for visits in found.values() for visit in visits)])}"
        lineage = str(run.about["lineage"]["name"])
        run.keep(unit, CheckpointStamp(lineage, unit).sign(records))
        run.forget("monitor-", but=unit)
    return unit


def check_false_positive_rates(rates: Sequence[float]) -> None:
    for rate in rates:
        if not 0 < rate < 1:
            raise BadInput(
                f"a false-positive rate of {rate:g} is none. Give a share between 0 and 1, such as --at 0.01."
            )


def monitor_rows(
    run: Run, concept: str, visits: Sequence[MeasuredCheckpoint], rates: Sequence[float]
) -> Iterator[Record]:
    """What each probe catches at each rate, and what frozen thresholds do elsewhere."""
    watch = held_out_examples(run, concept, visits[0])
    kept = {visit.unit: run.scores(visit.unit) for visit in visits}
    best = run.records(f"metric = 'best_site' and concept = {sql_text(concept)}")
    for method in (name for name in common_methods(visits) if name in MONITORED_PROBES):
        for visit in visits:
            for part, sites in visit.sites.items():
                yield from _tpr_rows(watch, visit, method, sites, kept[visit.unit][f"{method}/{part}"][..., 0], rates)
        if len(best):
            site = Site.parse(str(best.site.iloc[0]))
            yield from _frozen_threshold_rows(watch, checkpoints_to_freeze(visits), method, site, kept, rates)


def checkpoints_to_freeze(visits: Sequence[MeasuredCheckpoint]) -> list[MeasuredCheckpoint]:
    """The last checkpoint of each stage; of a single stage, some checkpoints evenly spread, the last among them."""
    lasts = list({visit.stage: visit for visit in visits}.values())
    if len(lasts) > 1 or len(visits) <= _MAX_FROZEN_CHECKPOINTS:
        return lasts if len(lasts) > 1 else list(visits)
    return [
        visits[round(i * (len(visits) - 1) / (_MAX_FROZEN_CHECKPOINTS - 1))] for i in range(_MAX_FROZEN_CHECKPOINTS)
    ]


def _tpr_metric_name(rate: float) -> str:
    """`tpr_at_1_fpr`: the metric's name holds the rate in percent."""
    return f"tpr_at_{100 * rate:g}_fpr"


def held_out_examples(run: Run, concept: str, visit: MeasuredCheckpoint) -> HeldOut:
    scores = run.scores(visit.unit)
    if "labels" not in scores:
        raise BadInput(
            f"{run.folder} keeps scores without their labels: it was traced by an older version. Trace it anew."
        )
    seed, groups = trace_settings_of(run).seed, scores["groups"].long()
    told, member = groups.unique(return_inverse=True)
    fold = torch.randperm(len(told), generator=torch.Generator().manual_seed(seed))[member] % 2
    weights = bootstrap.group_weights(groups, samples=_RESAMPLES, seed=seed)
    position = next(str(c["position"]) for c in run.about["concepts"] if c["name"] == concept)
    return HeldOut(concept, position, scores["labels"].bool(), groups, weights, fold, seed)


def _tpr_rows(
    watch: HeldOut,
    visit: MeasuredCheckpoint,
    method: str,
    sites: Sequence[Site],
    scores: Float[Tensor, "site example"],
    rates: Sequence[float],
) -> Iterator[Record]:
    for rate in rates:
        value = tpr_at_fpr(scores, watch.y, rate)
        resampled = bootstrap_tpr(scores, watch.y, watch.weights, rate)
        ends = bootstrap.share_interval(value, resampled, groups=len(watch.groups.unique()))
        reason = too_few_negatives(watch.negatives, rate)
        coords = {"at": f"{rate:g}", "negatives": str(watch.negatives)}
        told = site_rows(
            watch.about(len(watch.y)),
            _tpr_metric_name(rate),
            value,
            sites,
            method=method,
            interval=ends,
            coords=coords,
            reason=reason,
        )
        yield from stamp_checkpoint(told, visit)


def bootstrap_tpr(
    scores: Float[Tensor, "site example"],
    y: Bool[Tensor, " example"],
    weights: Float[Tensor, "sample example"],
    fpr: float,
) -> Float[Tensor, "sample site"]:
    """`tpr_at_fpr` of every site on every resample; the threshold is chosen anew in each. All-one weights: the point."""
    positive, negative = weights[:, y], weights[:, ~y]
    allowed = (fpr * negative.sum(1, keepdim=True) + 1e-6).floor()
    found = torch.empty(len(weights), len(scores))
    for site, score in enumerate(scores):
        high, order = score[~y].sort(descending=True)
        passed = (negative[:, order].cumsum(1) <= allowed).sum(1).clamp(max=len(high) - 1)
        above = score[y] > high[passed][:, None]
        found[:, site] = (positive * above).sum(1) / positive.sum(1)
    return found


def _frozen_threshold_rows(
    watch: HeldOut,
    visits: Sequence[MeasuredCheckpoint],
    method: str,
    site: Site,
    kept: Mapping[str, Mapping[str, Tensor]],
    rates: Sequence[float],
) -> Iterator[Record]:
    """Realised rates at each checkpoint under the threshold of each: the diagonal is what a fresh threshold does."""

    def at(visit: MeasuredCheckpoint) -> Float[Tensor, " example"]:
        scores: Tensor = kept[visit.unit][f"{method}/{site.part}"]
        return scores[visit.sites[site.part].index(site), :, 0]

    fewest = watch.fewest
    for rate in rates:
        for source in visits:
            for target in visits:
                passed = (
                    frozen_threshold_alarms(at(source), at(target), watch, rate) if resolves_fpr(fewest, rate) else None
                )
                coords = {"at": f"{rate:g}", "source_stage": source.stage, "source_step": f"{source.step}"}
                for metric, group in (("realised_fpr", ~watch.y), ("realised_tpr", watch.y)):
                    yield alarm_rate_row(
                        watch,
                        target,
                        site,
                        metric,
                        method,
                        passed,
                        group,
                        coords,
                        _OWN_PROBE_NOTE,
                        too_few_negatives(fewest, rate),
                    )


def frozen_threshold_alarms(
    source: Float[Tensor, " example"], target: Float[Tensor, " example"], watch: HeldOut, rate: float
) -> Float[Tensor, " example"]:
    """1 where an example raises an alarm at the target, under the threshold that the other half's negatives set at the source."""
    raised = torch.empty(len(target))
    for half in (0, 1):
        chosen, tried = watch.fold == half, watch.fold != half
        raised[tried] = (target[tried] > threshold_at_fpr(source[chosen & ~watch.y], rate)).float()
    return raised


def alarm_rate_row(
    watch: HeldOut,
    visit: MeasuredCheckpoint,
    site: Site,
    metric: str,
    method: str,
    raised: Float[Tensor, " example"] | None,
    group: Bool[Tensor, " example"],
    coords: Mapping[str, str],
    note: str,
    reason: str,
) -> Record:
    """The rate of alarms among a group of examples; None where the threshold could not be set."""
    value, ends = torch.tensor([torch.nan]), Interval(torch.tensor([torch.nan]), torch.tensor([torch.nan]))
    if raised is not None:
        value = raised[group].mean()[None]
        resampled = bootstrap.mean_samples(raised[None, group], watch.weights[:, group])
        ends = bootstrap.share_interval(value, resampled, groups=len(watch.groups[group].unique()))
    about = watch.about(int(group.sum()))
    told = site_rows(
        about, metric, value, [site], method=method, interval=ends, note=note, coords=coords, reason=reason
    )
    return stamp_checkpoint(told, visit)[0]


def too_few_negatives(negatives: int, rate: float) -> str:
    if resolves_fpr(negatives, rate):
        return "degenerate scores"
    return f"{negatives} held-out negatives cannot show a rate of {100 * rate:g} %: it takes {round(1 / rate)}"
