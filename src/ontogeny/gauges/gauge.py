"""Gauge: the probe of a traced concept at one checkpoint, calibrated on held-out examples, with what it can and cannot tell.

The probability is Platt's, from the held-out scores that the run keeps. Its expected calibration error is that of maps which were fitted
on the other half of the groups. A score that lies outside the 99 % prediction interval of every class is off the distribution of the
traced texts: the interval is that of a further normal draw (Student's t).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import stdtr
from torch import Tensor

from ontogeny.data.templates import Template
from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput
from ontogeny.gauges.labels import GaugeLabel
from ontogeny.metrics.calibration import expected_calibration_error, perfect_calibration_error
from ontogeny.sites import Site
from ontogeny.statistics.calibration_maps import CalibrationMap, cross_fitted_probabilities
from ontogeny.statistics.platt import fit_platt_scaling
from ontogeny.statistics.unique import unique_values
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

OFF_DISTRIBUTION_LEVEL = 0.01
"""A score that each class exceeds less often than this is off the distribution."""
UNKNOWN_BELOW = 0.7
"""Highest probability, of two classes, below which the gauge gives no answer."""
READING_PROBES = ("logistic", "mass_mean")
"""Probes that can be a gauge; the first that was traced is."""
_LEAST_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class CalibratedProbe:
    """A probe at one site, with the probabilities that its held-out scores give."""

    weight: Float[Tensor, "d k"]
    """k = 1 for two classes, else a column for each."""
    bias: Float[Tensor, " k"]
    calibration: CalibrationMap
    centres: Float[Tensor, "c k"]
    """Mean held-out score of each class in each column."""
    spreads: Float[Tensor, "c k"]
    counts: Int[Tensor, " c"]
    """Held-out examples of each class."""

    @classmethod
    def of(
        cls,
        weight: Float[Tensor, "d k"],
        bias: Float[Tensor, " k"],
        calibration: CalibrationMap,
        scores: Float[Tensor, "example k"],
        y: Int[Tensor, " example"],
    ) -> "CalibratedProbe":
        """The probe with the means and spreads of the classes in its held-out scores."""
        classes = range(max(scores.shape[1], 2))
        centres = torch.stack([scores[y == c].mean(0) for c in classes])
        spreads = torch.stack([scores[y == c].std(0) for c in classes])
        return cls(weight, bias, calibration, centres, spreads, y.bincount(minlength=len(classes)))

    def scores(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token k"]:
        """Scores of activations; of two classes positive for the positive one."""
        return x.float() @ self.weight + self.bias

    def typicality(self, scores: Float[Tensor, "token k"]) -> Float[Tensor, " token"]:
        """The largest p over the classes that a further draw of the class lies as far from its mean, in the class's own column."""
        columns, centres, widths, freedom = self._own_columns
        distance = np.abs(scores.double().numpy()[:, columns] - centres) / widths
        return torch.from_numpy((2 * stdtr(freedom, -distance)).max(1))

    @functools.cached_property
    def _own_columns(self) -> tuple[Any, Any, Any, Any]:
        """Of each class its own column, and there its mean, the width of a further draw, and the degrees of freedom; in NumPy, whose
        calls on a few numbers cost a third of those of torch."""
        classes = np.arange(len(self.counts))
        columns, n = classes.clip(max=self.weight.shape[1] - 1), self.counts.double().numpy()
        centres, spreads = (part.double().numpy()[classes, columns] for part in (self.centres, self.spreads))
        return columns, centres, (spreads * np.sqrt(1 + 1 / n)).clip(min=1e-12), n - 1


@dataclass(frozen=True, eq=False)
class Gauge:
    """The reading probe of a concept at a checkpoint; without a probe it cannot be read there, and `reason` says why."""

    label: GaugeLabel
    stage: str
    step: int | None
    unit: str
    """Unit of the run that holds the probe; "" if the concept was not traced at the checkpoint."""
    position: str
    template: Template
    """Template in which the concept's texts were traced."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    site: Site | None = None
    method: str = ""
    auroc: float = math.nan
    auroc_low: float = math.nan
    auroc_high: float = math.nan
    floors: Mapping[str, float] = field(default_factory=dict)
    """AUROC of each control, by its name: random directions, words alone, the untrained model."""
    n: int = 0
    """Held-out examples."""
    groups: int = 0
    calibration_error: float = math.nan
    """Of the confidence in the likeliest class, on groups that the map was not fitted on."""
    calibration_noise: float = math.nan
    """The error that perfect calibration would show on so few examples, 95 % quantile."""
    probe: CalibratedProbe | None = None
    reason: str = ""


def gauge_state(probabilities: Sequence[float], typicality: float) -> str:
    """`read`, `unknown` or `off distribution`."""
    if typicality < OFF_DISTRIBUTION_LEVEL:
        return "off distribution"
    chance = 1 / len(probabilities)
    return "read" if max(probabilities) - chance >= (2 * UNKNOWN_BELOW - 1) * (1 - chance) else "unknown"


def make_gauge(run: Run, label: GaugeLabel, visit: MeasuredCheckpoint | None, *, method: str | None = None) -> Gauge:
    """The gauge of a concept at one of its measured checkpoints.

    Args:
        label: From `gauge_label`.
        visit: From `measured_checkpoints`; None where the concept was not traced.
        method: logistic or mass_mean; by default the first that was traced.

    Raises:
        BadInput: a method that no gauge has.
    """
    if method is not None and method not in READING_PROBES:
        raise BadInput(f"`method` must be {' or '.join(READING_PROBES)} for a gauge, got {method!r}: leave it out.")
    entry: Mapping[str, Any] = next((c for c in run.about.get("concepts", ()) if c["name"] == label.concept), {})
    about = (str(entry.get("position", "last")), entry.get("template", False))
    if visit is None:
        return Gauge(label, "", None, "", *about, "", reason="it was not traced at this checkpoint")
    tokenizer = str(run.headers()[visit.unit].get("tokenizer") or "")
    gauge = Gauge(label, visit.stage, visit.step, visit.unit, *about, tokenizer)
    chosen = next((m for m in READING_PROBES if m in visit.methods and method in (None, m)), None)
    if entry.get("kind") == "number":
        return replace(gauge, reason="its target is a number, and a gauge shows classes")
    if chosen is None:
        return replace(gauge, reason=f"no probe {method or 'logistic or mass_mean'} was traced")
    best = best_site(run, [visit])
    kept = run.scores(visit.unit)
    if "labels" not in kept:
        return replace(gauge, reason="the run keeps scores without their labels: trace it again")
    held_out = kept[f"{chosen}/{best.part}"][best.at].double(), kept["labels"].long(), kept["groups"].long()
    return _calibrated(run, replace(gauge, method=chosen), best, *held_out)


def _calibrated(
    run: Run,
    gauge: Gauge,
    best: BestSite,
    scores: Float[Tensor, "example k"],
    y: Int[Tensor, " example"],
    groups: Int[Tensor, " example"],
) -> Gauge:
    """The gauge with its probe, if it reads held-out examples better than chance."""
    gauge = replace(gauge, site=best.site)
    low, value, high = _auroc(run, gauge)
    gauge = replace(gauge, auroc=value, auroc_low=low, auroc_high=high, floors=_floors(run, gauge))
    gauge = replace(gauge, n=len(y), groups=len(unique_values(groups)))
    if not low > 0.5:
        reason = f"{best.site} does not read it here: held-out AUROC {value:.2f}, its interval begins at {low:.2f}, not above .5"
        return replace(gauge, reason=reason)
    classes = range(max(scores.shape[1], 2))
    counts = y.bincount(minlength=len(classes))
    if int(counts.min()) < _LEAST_EXAMPLES or not bool(torch.isfinite(scores).all()):
        return replace(gauge, reason=f"a class has fewer than {_LEAST_EXAMPLES} held-out examples with a finite score")
    calibration = fit_platt_scaling(scores, y)
    if not bool((calibration.slope > 0).all()):
        return replace(gauge, reason="its scores rank the held-out examples of a class the wrong way round")
    key, at = f"{gauge.method}/{best.part}", best.at
    tensors = run.directions(gauge.unit, [f"{key}/direction", f"{key}/bias"])
    readout = tensors[f"{key}/direction"][at].float(), tensors[f"{key}/bias"][at].float()
    probe = CalibratedProbe.of(*readout, calibration, scores, y)
    error, noise = _calibration_error(scores, y, groups)
    return replace(gauge, calibration_error=error, calibration_noise=noise, probe=probe)


def default_gauges(labels: Sequence[GaugeLabel], most: int = 6) -> list[str]:
    """Concepts whose gauges are on without a choice: those about the user first, none of them sensitive."""
    order = sorted((label for label in labels if not label.sensitive), key=lambda label: label.subject != "user")
    return [label.concept for label in order[:most]]


def _auroc(run: Run, gauge: Gauge) -> tuple[float, float, float]:
    """The held-out AUROC in the middle of its interval; NaN without a row."""
    rows = run.query(
        f"select low, value, high from records where metric = 'auroc' and control is null and site = {sql_text(str(gauge.site))} "
        f"and concept = {sql_text(gauge.label.concept)} and method = {sql_text(gauge.method)} and unit = {sql_text(gauge.unit)}"
    )
    if not len(rows):
        return math.nan, math.nan, math.nan
    low, value, high = (float(rows[name].iloc[0]) for name in ("low", "value", "high"))
    return low, value, high


def _floors(run: Run, gauge: Gauge) -> dict[str, float]:
    """The AUROC of each control of the concept at the gauge's site, and of those that have no site or no checkpoint."""
    rows = run.query(
        f"select control, max(value) as value from records where metric = 'auroc' and control is not null and not isnan(value) "
        f"and concept = {sql_text(gauge.label.concept)} and (site is null or site = {sql_text(str(gauge.site))}) "
        f"and (unit = {sql_text(gauge.unit)} or step is null and stage is null) "
        f"and (method is null or site is null or method in ('random', {sql_text(gauge.method)})) group by all order by all"
    )
    return {str(control): float(value) for control, value in zip(rows["control"], rows["value"], strict=True)}


def _calibration_error(
    scores: Float[Tensor, "example k"], y: Int[Tensor, " example"], groups: Int[Tensor, " example"]
) -> tuple[float, float]:
    """Calibration error across two halves of the groups, and that of perfect calibration; NaN if a half lacks a class."""
    try:
        shares = cross_fitted_probabilities(fit_platt_scaling, scores, y, groups)
    except BadInput:
        return math.nan, math.nan
    return calibration_error(shares, y)


def calibration_error(shares: Float[Tensor, "example c"], y: Int[Tensor, " example"]) -> tuple[float, float]:
    """Calibration error of the likeliest class in bins of equal counts, and the 95 % quantile of it under perfect calibration."""
    confidence, best = shares.max(1)
    right = best == y
    error = float(expected_calibration_error(confidence, right, by="count"))
    return error, float(perfect_calibration_error(confidence, by="count").quantile(0.95))
