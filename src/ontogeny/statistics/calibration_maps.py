"""Calibration maps: probabilities from the scores of a probe by temperature, Platt or isotonic regression, and the choice among them.

A temperature has one number for all classes (arXiv:1706.04599), Platt two for each, isotonic regression a step function for each
(Zadrozny & Elkan, KDD 2002). The map with the lowest Brier score across two halves of the groups is chosen.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ontogeny.errors import BadInput, unknown_name
from ontogeny.metrics.calibration import brier_score
from ontogeny.statistics.platt import PlattScaling, fit_platt_scaling
from ontogeny.statistics.unique import unique_inverse

_FARTHEST = 1e-3
"""An isotonic step of n examples is at least 1 / (n + 2) from 0 and 1, and at least this far."""
_LOG_RANGE = 12.0
"""A temperature lies between exp(−12) and exp(12)."""


@dataclass(frozen=True)
class TemperatureScaling:
    """Softmax of the scores over one temperature; a sigmoid of two classes."""

    temperature: float

    def probabilities(self, scores: Float[Tensor, "example k"]) -> Float[Tensor, "example c"]:
        """The probability of each class."""
        scaled = scores.double() / self.temperature
        if scaled.shape[1] == 1:
            scaled = torch.cat([torch.zeros_like(scaled), scaled], 1)
        return scaled.softmax(1)


@dataclass(frozen=True, eq=False)
class IsotonicCalibration:
    """Step functions of the scores, one for each column, linear between their corners."""

    corners: tuple[Float[Tensor, " _"], ...]
    """Scores, increasing."""
    levels: tuple[Float[Tensor, " _"], ...]
    """The probability at each corner, not decreasing."""

    def probabilities(self, scores: Float[Tensor, "example k"]) -> Float[Tensor, "example c"]:
        """The probability of each class."""
        columns = [
            torch.from_numpy(np.interp(scores[:, k].double().numpy(), corners.numpy(), levels.numpy()))
            for k, (corners, levels) in enumerate(zip(self.corners, self.levels, strict=True))
        ]
        each = torch.stack(columns, 1)
        if each.shape[1] == 1:
            return torch.cat([1 - each, each], 1)
        shares: Tensor = each / each.sum(1, keepdim=True)
        return shares


CalibrationMap = PlattScaling | TemperatureScaling | IsotonicCalibration
"""Each has `probabilities`: the probability of each class; of two classes the second one is the positive one."""


def fit_temperature(scores: Float[Tensor, "example k"], y: Int[Tensor, " example"]) -> TemperatureScaling:
    """The temperature with the least cross-entropy on held-out scores, from Platt's targets: (n + 1) / (n + 2) for n examples of a class.

    With 0 and 1 as targets, a few examples that lie apart would make it 0, and every probability certain.
    """
    from scipy.optimize import minimize_scalar

    classes = max(2, scores.shape[1])
    unsure = 1 / (y.bincount(minlength=classes).double() + 2)[y][:, None]
    target = torch.where(one_hot(y, classes).bool(), 1 - unsure, unsure / (classes - 1))

    def loss(log: float) -> float:
        shares = TemperatureScaling(math.exp(log)).probabilities(scores).clamp(min=1e-300)
        return float(-(target * shares.log()).sum(1).mean())

    best = minimize_scalar(loss, bounds=(-_LOG_RANGE, _LOG_RANGE), method="bounded", options={"xatol": 1e-4})
    return TemperatureScaling(math.exp(float(best.x)))


def fit_isotonic(scores: Float[Tensor, "example k"], y: Int[Tensor, " example"]) -> IsotonicCalibration:
    """Isotonic regression of each class on its column, by pooling adjacent violators; no level is 0 or 1."""
    from sklearn.isotonic import IsotonicRegression

    corners, levels, columns = [], [], scores.shape[1]
    floor = max(1 / (len(y) + 2), _FARTHEST)
    for k in range(columns):
        inside = (y == (1 if columns == 1 else k)).double().numpy()
        fitted = IsotonicRegression(y_min=floor, y_max=1 - floor).fit(scores[:, k].double().numpy(), inside)
        corners.append(torch.from_numpy(np.array(fitted.X_thresholds_, dtype=np.float64)))
        levels.append(torch.from_numpy(np.array(fitted.y_thresholds_, dtype=np.float64)))
    return IsotonicCalibration(tuple(corners), tuple(levels))


_FITS: Mapping[str, Callable[[Tensor, Tensor], CalibrationMap]] = {
    "temperature": fit_temperature,
    "platt": fit_platt_scaling,
    "isotonic": fit_isotonic,
}
CALIBRATION_NAMES = tuple(_FITS)


def fit_calibration(name: str, scores: Float[Tensor, "example k"], y: Int[Tensor, " example"]) -> CalibrationMap:
    """The map of a name, fitted on held-out scores.

    Args:
        name: temperature, platt or isotonic.
        scores: Of examples that the probe was not fitted on; k = 1 for two classes, else a column for each class.
        y: Class of each example, from 0.

    Raises:
        BadInput: an unknown name, a class without an example, or a score that is not finite.
    """
    if name not in _FITS:
        raise unknown_name("calibration", name, CALIBRATION_NAMES)
    platt = fit_platt_scaling(scores, y)  # checks the scores
    return platt if name == "platt" else _FITS[name](scores, y)


def cross_fitted_probabilities(
    fit: Callable[[Tensor, Tensor], CalibrationMap],
    scores: Float[Tensor, "example k"],
    y: Int[Tensor, " example"],
    groups: Int[Tensor, " example"],
) -> Float[Tensor, "example c"]:
    """The probabilities of each half of the groups by the map of the other half.

    Raises:
        BadInput: a half lacks a class.
    """
    count, member = unique_inverse(groups)
    half = torch.randperm(count, generator=torch.Generator().manual_seed(0))[member] % 2
    shares = torch.empty(len(y), max(2, scores.shape[1]), dtype=torch.float64)
    for side in (0, 1):
        shares[half != side] = fit(scores[half == side], y[half == side]).probabilities(scores[half != side])
    return shares


def choose_calibration(
    scores: Float[Tensor, "example k"], y: Int[Tensor, " example"], groups: Int[Tensor, " example"]
) -> tuple[str, dict[str, float]]:
    """The map with the lowest Brier score across two halves of the groups, and the score of each; Platt if a half lacks a class."""
    found = dict[str, float]()
    for name in CALIBRATION_NAMES:
        try:
            shares = cross_fitted_probabilities(partial(fit_calibration, name), scores, y, groups)
        except BadInput:
            return "platt", {}
        found[name] = float(brier_score(shares, y).mean())
    return min(found, key=lambda name: found[name]), found


def calibration_json(fitted: CalibrationMap) -> dict[str, Any]:
    """The parameters of a map as JSON holds them; `calibration_from_json` is the inverse."""
    match fitted:
        case PlattScaling():
            return {"map": "platt", "slope": fitted.slope.tolist(), "intercept": fitted.intercept.tolist()}
        case TemperatureScaling():
            return {"map": "temperature", "temperature": fitted.temperature}
        case IsotonicCalibration():
            return {
                "map": "isotonic",
                "corners": [one.tolist() for one in fitted.corners],
                "levels": [one.tolist() for one in fitted.levels],
            }


def calibration_from_json(content: Mapping[str, Any]) -> CalibrationMap:
    """The map whose parameters `calibration_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is no such content.
    """

    def numbers(values: Any) -> Tensor:
        row = torch.tensor(values, dtype=torch.float64)
        if row.ndim != 1 or not len(row) or not bool(torch.isfinite(row).all()):
            raise ValueError("a calibration must hold finite numbers")
        return row

    match content["map"]:
        case "platt":
            return PlattScaling(numbers(content["slope"]), numbers(content["intercept"]))
        case "temperature":
            (temperature,) = numbers([content["temperature"]]).tolist()
            if temperature <= 0:
                raise ValueError("a temperature must be above 0")
            return TemperatureScaling(temperature)
        case "isotonic":
            pairs = zip(content["corners"], content["levels"], strict=True)
            corners, levels = zip(*((numbers(a), numbers(b)) for a, b in pairs), strict=True)
            if any(len(a) != len(b) for a, b in zip(corners, levels, strict=True)):
                raise ValueError("corners and levels must be as many")
            return IsotonicCalibration(corners, levels)
    raise ValueError(f"there is no calibration {content['map']!r}")
