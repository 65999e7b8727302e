"""Probes as monitors: true-positive rate at a fixed false-positive rate, and thresholds frozen at one checkpoint.

Computed from the held-out scores of a run, so no model is loaded. A threshold is chosen on one half of the held-out groups and applied to
the other: on the negatives it was chosen on it would meet its rate by construction. TPR at 1 % FPR is the usual measure for monitors of
deployed models (arXiv:2502.03407).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.data.templates import Template
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, common_methods, measured_checkpoints
from ontogeny.errors import BadInput
from ontogeny.jobs.inputs import as_run
from ontogeny.jobs.trace.plan import trace_settings_of
from ontogeny.measurements.rows import CheckpointStamp, RowContext, site_rows
from ontogeny.metrics.separability import resolves_fpr, threshold_at_fpr, tpr_at_fpr
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

MONITORED_PROBES = ("logistic", "mass_mean")
FALSE_POSITIVE_RATES = (0.01, 0.05)
_RESAMPLES = 1000
_MAX_FROZEN_CHECKPOINTS = 8
"""Checkpoints whose thresholds are frozen in a lineage of one stage."""
_OWN_PROBE_NOTE = "the threshold is frozen, the probe is the checkpoint's own"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out examples of a concept, the same at every checkpoint."""

    concept: str
    position: str
    y: Bool[Tensor, " example"]
    groups: Int[Tensor, " example"]
    weights: Float[Tensor, "sample example"]
    half: Int[Tensor, " example"]
    """0 or 1 by group: thresholds are chosen on one half and applied to the other."""
    seed: int

    @property
    def negatives(self) -> int:
        return int((~self.y).sum())

    @property
    def smaller_half_negatives(self) -> int:
        """Number of negatives in the half with fewer of them."""
        return min(int((~self.y & (self.half == half)).sum()) for half in (0, 1))

    def row_context(self, n: int) -> RowContext:
        """Columns of rows about `n` of the examples."""
        return RowContext(self.concept, self.position, n, self.seed)


def monitor(source: Run | str | Path, rates: Sequence[float] = FALSE_POSITIVE_RATES) -> Run:
    """Add the true-positive rate of each probe at fixed false-positive rates to a traced run, see `write_monitor_rows`.

    Args:
        source: A run, or its folder.
        rates: False-positive rates, between 0 and 1.

    Raises:
        BadInput: the folder is not a run, or the run cannot be monitored.
    """
    run = as_run(source)
    write_monitor_rows(run, rates)
    return run


def write_monitor_rows(run: Run, rates: Sequence[float] = FALSE_POSITIVE_RATES) -> str:
    """Write TPR at each false-positive rate, and rates at frozen thresholds; returns the unit of the rows.

    The rows replace those of an earlier call.

    Raises:
        BadInput: a rate outside (0, 1), a run without two-class concepts or without the labels of its scores, or a locked run.
    """
    check_false_positive_rates(rates)
    binary = [str(concept["name"]) for concept in run.about.get("concepts", ()) if concept.get("kind") == "binary"]
    measured = {name: visits for name in binary if (visits := measured_checkpoints(run, name))}
    if not measured:
        raise BadInput(f"{run.folder} must hold a concept of two classes, since a false-positive rate needs negatives.")
    with run_lock(run.folder):
        records = [record for name, visits in measured.items() for record in monitor_rows(run, name, visits, rates)]
        key = [list(rates), sorted(visit.unit for visits in measured.values() for visit in visits)]
        unit = f"monitor-{content_digest(key)}"
        run.keep(unit, CheckpointStamp(str(run.about["lineage"]["name"]), unit).sign(records))
        run.forget("monitor-", but=unit)
    return unit


def check_false_positive_rates(rates: Sequence[float], *, argument: str = "rates") -> None:
    """Raise unless every rate lies between 0 and 1; `argument` is named in the error."""
    for rate in rates:
        if not 0 < rate < 1:
            raise BadInput(f"`{argument}` must lie between 0 and 1, got {rate:g}: choose one such as 0.01.")


def check_template_of_run(run: Run, concepts: Iterable[str], template: Template | None) -> None:
    """Raise BadInput if concepts were traced in another template; None is the template of the trace."""
    for concept in run.about.get("concepts", ()) if template is not None else ():
        traced = concept.get("template", False)
        if concept["name"] in concepts and traced != template:
            names = [repr(one) if isinstance(one, str) else "own" if one else "none" for one in (traced, template)]
            raise BadInput(
                f"`template` must be that of the trace of {concept['name']} ({names[0]}), got {names[1]}: leave it out, or trace the "
                "texts in the other template.",
                argument="template",
            )


def monitor_rows(
    run: Run, concept: str, visits: Sequence[MeasuredCheckpoint], rates: Sequence[float]
) -> Iterator[Record]:
    """TPR of each probe at each site and checkpoint; rates at frozen thresholds at the best site."""
    held_out = held_out_examples(run, concept, visits[0])
    scores = {visit.unit: run.scores(visit.unit) for visit in visits}
    best = run.records(f"metric = 'best_site' and concept = {sql_text(concept)}")
    for method in (name for name in common_methods(visits) if name in MONITORED_PROBES):
        for visit in visits:
            for part, sites in visit.sites.items():
                here = scores[visit.unit][f"{method}/{part}"][..., 0]
                yield from _tpr_rows(held_out, visit, method, sites, here, rates)
        if len(best):
            site = Site.parse(str(best.site.iloc[0]))
            yield from _frozen_threshold_rows(held_out, checkpoints_to_freeze(visits), method, site, scores, rates)


def checkpoints_to_freeze(visits: Sequence[MeasuredCheckpoint]) -> list[MeasuredCheckpoint]:
    """The last checkpoint of each stage; in a lineage of one stage, evenly spaced checkpoints including the last."""
    lasts = list({visit.stage: visit for visit in visits}.values())
    if len(lasts) > 1 or len(visits) <= _MAX_FROZEN_CHECKPOINTS:
        return lasts if len(lasts) > 1 else list(visits)
    last = _MAX_FROZEN_CHECKPOINTS - 1
    return [visits[round(i * (len(visits) - 1) / last)] for i in range(_MAX_FROZEN_CHECKPOINTS)]


def held_out_examples(run: Run, concept: str, visit: MeasuredCheckpoint, *, one_fold: bool = False) -> HeldOut:
    """Labels and groups of a concept's held-out examples, as the run keeps them.

    Args:
        one_fold: Under cross-fitting, the examples of the first fold only, as in `Design.one_fold`.

    Raises:
        BadInput: the run was traced by a version that kept no labels.
    """
    scores = run.scores(visit.unit)
    if "labels" not in scores:
        raise BadInput(f"{run.folder} has scores without their labels, from an older version: trace it again.")
    seed, groups, labels = trace_settings_of(run).seed, scores["groups"].long(), scores["labels"].bool()
    if one_fold and "folds" in scores:
        groups, labels = groups[scores["folds"] == 0], labels[scores["folds"] == 0]
    names, member = groups.unique(return_inverse=True)
    half = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[member] % 2
    weights = bootstrap.group_weights(groups, samples=_RESAMPLES, seed=seed)
    position = next(str(c["position"]) for c in run.about["concepts"] if c["name"] == concept)
    return HeldOut(concept, position, labels, groups, weights, half, seed)


def _tpr_rows(
    held_out: HeldOut,
    visit: MeasuredCheckpoint,
    method: str,
    sites: Sequence[Site],
    scores: Float[Tensor, "site example"],
    rates: Sequence[float],
) -> Iterator[Record]:
    for rate in rates:
        value = tpr_at_fpr(scores, held_out.y, rate)
        samples = bootstrap_tpr(scores, held_out.y, held_out.weights, rate)
        rows = site_rows(
            held_out.row_context(len(held_out.y)),
            f"tpr_at_{100 * rate:g}_fpr",
            value,
            sites,
            method=method,
            interval=bootstrap.share_interval(value, samples, groups=len(held_out.groups.unique())),
            coords={"at": f"{rate:g}", "negatives": str(held_out.negatives)},
            reason=_missing_rate_reason(held_out.negatives, rate),
        )
        yield from stamp_checkpoint(rows, visit)


def bootstrap_tpr(
    scores: Float[Tensor, "site example"],
    y: Bool[Tensor, " example"],
    weights: Float[Tensor, "sample example"],
    fpr: float,
) -> Float[Tensor, "sample site"]:
    """`tpr_at_fpr` of every site on every resample, with a threshold of its own; weights of one give the point."""
    positive, negative = weights[:, y], weights[:, ~y]
    allowed = (fpr * negative.sum(1, keepdim=True) + 1e-6).floor()
    samples = torch.empty(len(weights), len(scores))
    for site, score in enumerate(scores):
        high, order = score[~y].sort(descending=True)
        passed = (negative[:, order].cumsum(1) <= allowed).sum(1).clamp(max=len(high) - 1)
        above = score[y] > high[passed][:, None]
        samples[:, site] = (positive * above).sum(1) / positive.sum(1)
    return samples


def _frozen_threshold_rows(
    held_out: HeldOut,
    visits: Sequence[MeasuredCheckpoint],
    method: str,
    site: Site,
    scores: Mapping[str, Mapping[str, Tensor]],
    rates: Sequence[float],
) -> Iterator[Record]:
    """Rates at each checkpoint under the threshold of each; on the diagonal the threshold is the checkpoint's own."""

    def at(visit: MeasuredCheckpoint) -> Float[Tensor, " example"]:
        part: Tensor = scores[visit.unit][f"{method}/{site.part}"]
        return part[visit.sites[site.part].index(site), :, 0]

    for rate in rates:
        for source in visits:
            for target in visits:
                yield from alarm_rate_rows(
                    held_out,
                    source,
                    target,
                    site,
                    (at(source), at(target)),
                    rate,
                    method=method,
                    prefix="realised",
                    note=_OWN_PROBE_NOTE,
                )


def frozen_threshold_alarms(
    source: Float[Tensor, " example"], target: Float[Tensor, " example"], held_out: HeldOut, rate: float
) -> Float[Tensor, " example"]:
    """1 if an example raises an alarm at the target; the threshold comes from the other half's negatives at the source."""
    alarms = torch.empty(len(target))
    for half in (0, 1):
        chosen, tried = held_out.half == half, held_out.half != half
        alarms[tried] = (target[tried] > threshold_at_fpr(source[chosen & ~held_out.y], rate)).float()
    return alarms


def alarm_rate_rows(
    held_out: HeldOut,
    source: MeasuredCheckpoint,
    target: MeasuredCheckpoint,
    site: Site,
    scores: tuple[Float[Tensor, " example"], Float[Tensor, " example"]],
    rate: float,
    *,
    method: str,
    prefix: str,
    note: str,
) -> Iterator[Record]:
    """`<prefix>_fpr` and `<prefix>_tpr` at the target with thresholds frozen at the source.

    Args:
        scores: Of the held-out examples at source and target.
        rate: False-positive rate for which the thresholds are chosen.
    """
    negatives = held_out.smaller_half_negatives
    reason, alarms = _missing_rate_reason(negatives, rate), None
    if resolves_fpr(negatives, rate):
        alarms = frozen_threshold_alarms(*scores, held_out, rate)
    coords = {"at": f"{rate:g}", "source_stage": source.stage, "source_step": f"{source.step}"}
    for metric, group in (("fpr", ~held_out.y), ("tpr", held_out.y)):
        value, ends = math.nan, (math.nan, math.nan)
        if alarms is not None:
            mean, weights = alarms[group].mean(), held_out.weights[:, group]
            samples = bootstrap.mean_samples(alarms[None, group], weights)[:, 0]
            groups = len(held_out.groups[group].unique())
            value, ends = float(mean), bootstrap.share_interval(mean, samples, groups=groups).ends
        context = held_out.row_context(int(group.sum()))
        row = context.row(
            f"{prefix}_{metric}",
            value,
            site,
            interval=ends,
            method=method,
            note=note,
            reason=reason,
            coords=coords,
        )
        yield from stamp_checkpoint([row], target)


def _missing_rate_reason(negatives: int, rate: float) -> str:
    if resolves_fpr(negatives, rate):
        return "degenerate scores"
    return f"{negatives} held-out negatives cannot show a rate of {100 * rate:g} %: it takes {round(1 / rate)}"
