"""Fit of one gauge on labelled conversations: a reading probe, a control vector, and the calibration, each on its own split.

The reading probe (logistic) is fitted at the last token of a begun answer, the control vector (mass-mean) at the end of the instruction,
where the answer begins: the most accurate reader need not be the best controller (arXiv:2406.07882).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny import plugins
from ontogeny.activations.activations import activations_at_token
from ontogeny.direction import random_unit_vector
from ontogeny.errors import BadInput
from ontogeny.gauges.gauge import CalibratedProbe, Gauge, calibration_error
from ontogeny.gauges.labelled_chats import LabelledChats
from ontogeny.gauges.three_splits import ThreeSplits
from ontogeny.measurements.scores import held_out_scores, score
from ontogeny.metrics.calibration import CalibrationBin, reliability_bins
from ontogeny.models.model import Model
from ontogeny.probes import Probe
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.calibration_maps import choose_calibration, fit_calibration
from ontogeny.statistics.unique import unique_values

READING_METHOD, CONTROL_METHOD = "logistic", "mass_mean"
_RANDOM_READERS = 100
_RELIABILITY_BINS = 5


@dataclass(frozen=True, eq=False)
class ScoreOnTest:
    """A probe on the test split, at a position."""

    auroc: float
    low: float
    high: float
    """95 % interval over groups; NaN with fewer than five examples of a class."""
    accuracy: float


@dataclass(frozen=True, eq=False)
class FittedGauge:
    """A gauge of a pack before its control vector is tested."""

    gauge: Gauge
    """Readable, or with the reason why it is not."""
    calibration: str
    """Name of the map that was chosen."""
    brier: Mapping[str, float]
    """Brier score of each map across two halves of the choose split."""
    scores: Mapping[str, ScoreOnTest]
    """By probe and position: `reading at reading`, `reading at control`, `control at control`, `control at reading`."""
    by_site: Mapping[str, tuple[float, float]]
    """AUROC of the reading probe and of the control vector on the choose split, at every site."""
    cosines: Mapping[str, float]
    """Cosine of both at every site; of several classes the mean."""
    reading: Probe
    control: Probe
    sites: tuple[Site, ...]
    reliability: tuple[CalibrationBin, ...] = ()
    """Confidence in the likeliest class on the test split, and how often it is right."""


def fit_gauge(
    model: Model, gauge: Gauge, chats: LabelledChats, splits: ThreeSplits, *, calibration: str = "auto", seed: int = 0
) -> FittedGauge:
    """Fit, choose and test the two probes of a gauge.

    Args:
        gauge: With its label, position and template, not fitted yet.
        chats: From `labelled_chats`, read with the suffix of the gauge's label.
        calibration: temperature, platt or isotonic; auto for the one with the lowest Brier score on the choose split.
    """
    sites, y = model.sites("resid"), chats.y
    target = y.bool() if chats.classes == 2 else y
    at = {
        "reading": _last_tokens(model, [e.ids for e in chats.begun], sites),
        "control": _last_tokens(model, [e.ids for e in chats.prompts], sites),
    }
    reading = _fit(READING_METHOD, at["reading"], target, chats.groups, splits.train, seed)
    control = _fit(CONTROL_METHOD, at["control"], target, chats.groups, splits.train, seed)
    chosen = {
        name: score("auroc", probe.scores(at[name][:, splits.choose]), target[splits.choose])
        for name, probe in (("reading", reading), ("control", control))
    }
    best = _best_site(
        chosen["reading"].nan_to_num(0.0), reading.scores(at["reading"][:, splits.choose]), target[splits.choose]
    )
    best_control = int(chosen["control"].nan_to_num(0.0).argmax())
    tested = {
        f"{name} at {place}": _on_test(probe, index, at[place], target, chats.groups, splits.test, seed)
        for name, probe, index in (("reading", reading, best), ("control", control, best_control))
        for place in ("reading", "control")
    }
    found = FittedGauge(
        gauge,
        "",
        {},
        tested,
        {
            str(site): (float(a), float(b))
            for site, a, b in zip(sites, chosen["reading"], chosen["control"], strict=True)
        },
        {str(site): value for site, value in zip(sites, _cosines(reading, control), strict=True)},
        reading,
        control,
        sites,
    )
    return _calibrated(found, at["reading"][best], best, target, chats, splits, calibration, seed)


def _calibrated(
    fitted: FittedGauge,
    x: Float[Tensor, "example d"],
    best: int,
    target: Tensor,
    chats: LabelledChats,
    splits: ThreeSplits,
    calibration: str,
    seed: int,
) -> FittedGauge:
    """With the calibrated probe at its site, if it reads the test split better than chance."""
    y, on_test = chats.y, fitted.scores["reading at reading"]
    gauge = replace(
        fitted.gauge,
        site=fitted.sites[best],
        method=READING_METHOD,
        auroc=on_test.auroc,
        auroc_low=on_test.low,
        auroc_high=on_test.high,
        floors={**fitted.gauge.floors, "random_direction": _random_reader(x, target, splits, seed)},
        n=len(splits.test),
        groups=len(unique_values(chats.groups[splits.test])),
    )
    weight, bias = fitted.reading.direction[best].float().cpu(), fitted.reading.bias[best].float().cpu()
    scores = (x @ weight + bias).double()
    chosen, choose = scores[splits.choose], splits.choose
    if not bool(torch.isfinite(scores).all()):
        return replace(fitted, gauge=replace(gauge, reason="all conversations are alike at every site"))
    name, brier = (
        (calibration, {}) if calibration != "auto" else choose_calibration(chosen, y[choose], chats.groups[choose])
    )
    mapped = fit_calibration(name, chosen, y[choose])
    shares = mapped.probabilities(scores[splits.test])
    error, noise = calibration_error(shares, y[splits.test])
    gauge = replace(gauge, calibration_error=error, calibration_noise=noise)
    confidence, best_class = shares.max(1)
    reliable = reliability_bins(confidence, best_class == y[splits.test], bins=_RELIABILITY_BINS, by="count")
    fitted = replace(fitted, calibration=name, brier=brier, reliability=tuple(reliable))
    if not on_test.low > 0.5:
        start = "has no interval" if math.isnan(on_test.low) else f"begins at {on_test.low:.2f}, not above .5"
        reason = f"{gauge.site} does not read it: AUROC {on_test.auroc:.2f} on the test split, its interval {start}"
        return replace(fitted, gauge=replace(gauge, reason=reason))
    probe = CalibratedProbe.of(weight, bias, mapped, chosen, y[choose])
    return replace(fitted, gauge=replace(gauge, probe=probe))


def _last_tokens(model: Model, rows: Sequence[Int[Tensor, " token"]], sites: Sequence[Site]) -> Tensor:
    return activations_at_token(model, rows, [-1] * len(rows), sites).float()


def _fit(method: str, x: Tensor, target: Tensor, groups: Tensor, rows: Tensor, seed: int) -> Probe:
    module = plugins.load_plugin("probes", method)
    probe: Probe = module.fit(x[:, rows], target[rows], groups=groups[rows], seed=seed)
    return probe


def _best_site(auroc: Float[Tensor, " site"], scores: Float[Tensor, "site example k"], target: Tensor) -> int:
    """The site with the highest AUROC; of equal ones that with the lowest cross-entropy."""
    if target.dtype == torch.bool:
        loss = torch.nn.functional.softplus(torch.where(target, -scores[..., 0], scores[..., 0])).mean(1)
    else:
        loss = -scores.log_softmax(-1)[:, torch.arange(len(target)), target].mean(1)
    order = sorted(range(len(auroc)), key=lambda i: (-round(float(auroc[i]), 6), float(loss[i].nan_to_num(math.inf))))
    return order[0]


def _on_test(
    probe: Probe, index: int, x: Tensor, target: Tensor, groups: Tensor, rows: Tensor, seed: int
) -> ScoreOnTest:
    one = Probe(probe.direction[index : index + 1], probe.bias[index : index + 1], {})
    scores, y, own = one.scores(x[index : index + 1, rows]), target[rows], groups[rows]
    if not bool(torch.isfinite(scores).all()):
        return ScoreOnTest(math.nan, math.nan, math.nan, math.nan)
    weights = group_weights(own, seed=seed)
    tested = held_out_scores("auroc", scores, y, weights, len(unique_values(own)))
    low, high = tested.interval[0].ends
    return ScoreOnTest(float(tested.value[0]), low, high, float(score("accuracy", scores, y)[0]))


def _random_reader(x: Float[Tensor, "example d"], target: Tensor, splits: ThreeSplits, seed: int) -> float:
    """AUROC on the test split of the random direction that reads the choose split best."""
    columns = 1 if target.dtype == torch.bool else int(target.max()) + 1
    axes = torch.stack([random_unit_vector(x.shape[1], 10_000 * seed + i) for i in range(_RANDOM_READERS * columns)])
    scores = (axes @ x.T).view(_RANDOM_READERS, columns, len(x)).mT
    best = int(score("auroc", scores[:, splits.choose], target[splits.choose]).nan_to_num(0.0).argmax())
    return float(score("auroc", scores[best : best + 1, splits.test], target[splits.test])[0])


def _cosines(reading: Probe, control: Probe) -> list[float]:
    return torch.cosine_similarity(reading.direction.float(), control.direction.float(), dim=1).mean(-1).tolist()


def check_classes(name: str, chats: LabelledChats) -> None:
    """Raise BadInput if the conversations that can be read have one class only."""
    counts = chats.y.bincount(minlength=chats.classes)
    if int((counts > 0).sum()) < chats.classes:
        missing = int(counts.argmin())
        raise BadInput(
            f"{name} must have conversations of each class, got none of class {missing} that can be read ({chats.left_out} were left out): "
            "shorten or add some."
        )
