"""Change points: the step at which a dependence curve turns from rising (fitting) to falling (compression).

A bent line over log2(step + 1) is fitted by least squares (Hudson 1966; Muggeo 2003). The tracing paper claims such phases
(arXiv:2402.19465, after arXiv:1703.00810); one is reported only if the order of the checkpoints matters. The null is independent noise
at each checkpoint, so a slow drift also looks like a phase.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics import order_test
from ontogeny.statistics.bootstrap import student_t_quantile

PhaseVerdict = Literal["fitting then compression", "fitting", "compression", "none"]
_ALPHA = 0.05
_MIN_CHECKPOINTS = 8
"""A bent line has four parameters; fewer checkpoints cannot show its noise."""
_COARSE_GRID, _FINE_GRID = 2, 50
"""Candidate bends per interval between two checkpoints: for the tests, and for the curve itself."""
_PERMUTATIONS = 999


@dataclass(frozen=True)
class TrainingPhases:
    """The turn from rising to falling; NaN with a reason unless both slopes are significant. Slopes are per doubling of the steps."""

    verdict: PhaseVerdict
    step: float
    low: float
    high: float
    slope_before: float
    slope_after: float
    reason: str


def fit_phases(
    steps: Shaped[Tensor, " step"], points: Float[Tensor, " step"], *, level: float = 0.95, seed: int = 0
) -> TrainingPhases:
    """Phases of one curve, with a profile-likelihood interval; checkpoints without a score are left out.

    Three tests compare the curve with shuffles of its checkpoints: whether a bent line explains anything, and whether the slopes before
    and after the bend exceed the steepest ones of any bend in a shuffle.
    """
    if (steps[1:] <= steps[:-1]).any() or (steps < 0).any():
        raise BadInput(
            f"the steps of a curve must increase from 0 or more, got {steps.tolist()}: sort the checkpoints."
        )
    known = ~points.isnan()
    count = int(known.sum())
    if count < _MIN_CHECKPOINTS:
        return _no_phases(
            f"{count} checkpoint{'s have' if count != 1 else ' has'} a score, phases need {_MIN_CHECKPOINTS}"
        )
    x, y = (steps[known].double() + 1).log2(), points[known].double()
    if y.max() - y.min() <= 1e-12 * y.abs().max():
        return _no_phases("the curve is constant")
    curves = y[order_test.checkpoint_orders(count, samples=_PERMUTATIONS, seed=seed)]
    error, before, after = _fit_bends(x, curves, _candidate_bends(x, _COARSE_GRID))
    best = error.argmin(1)
    p = _p(-error.amin(1))
    slopes = [_p(sign * _at(t, best), sign * t) for t in (before, after) for sign in (1, -1)]
    up_before, down_before, up_after, down_after = (q <= _ALPHA for q in slopes)
    bends = _candidate_bends(x, _FINE_GRID)
    errors = _fit_bends(x, y[None], bends)[0][0]
    bend = bends[errors.argmin()]
    slope_before, slope_after = _slopes(x, y, bend)
    if p > _ALPHA:
        return _no_phases(f"the order of the checkpoints could be chance (p = {p:.2g})", slope_before, slope_after)
    if up_before and down_after:
        low, high = _profile(bends, errors, count, level)
        return TrainingPhases(
            "fitting then compression", _step(bend), _step(low), _step(high), slope_before, slope_after, ""
        )
    if down_before and up_after:
        return _no_phases("the curve falls first and then rises", slope_before, slope_after)
    verdict: PhaseVerdict = "none"
    if up_before or up_after:
        verdict = "fitting"
    elif down_before or down_after:
        verdict = "compression"
    reason = {"fitting": "rises without falling", "compression": "falls without rising"}.get(verdict, "no clear slope")
    return TrainingPhases(verdict, math.nan, math.nan, math.nan, slope_before, slope_after, f"the curve {reason}")


def _candidate_bends(x: Float[Tensor, " step"], parts: int) -> Float[Tensor, " bend"]:
    """Candidate bends, with at least two checkpoints on each side."""
    inner = x[1:-1]
    share = torch.arange(parts, dtype=x.dtype) / parts
    return torch.cat([(inner[:-1, None] + share * inner.diff()[:, None]).flatten(), inner[-1:]])


def _design(x: Float[Tensor, " step"], bends: Float[Tensor, " bend"]) -> Float[Tensor, "bend step 3"]:
    """Columns: constant, slope before the bend, slope after it."""
    off = x - bends[:, None]
    return torch.stack([torch.ones_like(off), off.clamp(max=0), off.clamp(min=0)], 2)


def _fit_bends(
    x: Float[Tensor, " step"], curves: Float[Tensor, "sample step"], bends: Float[Tensor, " bend"]
) -> tuple[Float[Tensor, "sample bend"], Float[Tensor, "sample bend"], Float[Tensor, "sample bend"]]:
    """Squared error of every curve with every bend, and the t of both slopes."""
    design = _design(x, bends)
    inverse = torch.linalg.inv(design.mT @ design)
    centred = curves - curves.mean(1, keepdim=True)
    weights = (inverse @ design.mT)[:, 1:]
    before, after = (centred @ weights[:, i].T for i in (0, 1))
    basis = torch.linalg.qr(design).Q
    explained = sum((centred @ basis[:, :, i].T).square() for i in range(3))
    error = (centred.square().sum(1, keepdim=True) - explained).clamp(min=1e-30)
    noise = (error / (len(x) - 4)).sqrt()
    return error, before / (noise * inverse[:, 1, 1].sqrt()), after / (noise * inverse[:, 2, 2].sqrt())


def _slopes(x: Float[Tensor, " step"], y: Float[Tensor, " step"], bend: Tensor) -> tuple[float, float]:
    fit = torch.linalg.lstsq(_design(x, bend[None])[0], y[:, None]).solution
    return float(fit[1, 0]), float(fit[2, 0])


def _at(values: Float[Tensor, "sample bend"], best: Tensor) -> Float[Tensor, " sample"]:
    return values.gather(1, best[:, None])[:, 0]


def _p(statistic: Float[Tensor, " sample"], null: Float[Tensor, "sample bend"] | None = None) -> float:
    """Share of curves that reach the first one, the true curve; with `null`, the others count at their best bend."""
    reached = statistic if null is None else torch.cat([statistic[:1], null[1:].amax(1)])
    return float((reached >= statistic[0] - 1e-12 * statistic[0].abs()).double().mean())


def _profile(
    bends: Float[Tensor, " bend"], error: Float[Tensor, " bend"], count: int, level: float
) -> tuple[Tensor, Tensor]:
    """Range of the bends within the profile-likelihood interval."""
    allowed = error.min() * (1 + student_t_quantile(count - 4, level) ** 2 / (count - 4))
    inside = bends[error <= allowed]
    return inside.min(), inside.max()


def _step(position: Tensor) -> float:
    return float(2**position - 1)


def _no_phases(reason: str, slope_before: float = math.nan, slope_after: float = math.nan) -> TrainingPhases:
    return TrainingPhases("none", math.nan, math.nan, math.nan, slope_before, slope_after, reason)
