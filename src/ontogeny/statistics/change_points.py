"""Change points: the step at which a dependence curve turns from rising (fitting) to falling (compression).

A bent line over log2(step + 1) is fitted by least squares (Hudson 1966; Muggeo 2003). The tracing paper claims such phases
(arXiv:2402.19465, after arXiv:1703.00810); one is reported only if the order of the checkpoints matters. The null is independent noise
at each checkpoint, so a slow drift also looks like a phase. The curves of a report are tested together (`familywise_phases`): every
shuffle of the checkpoints gives the best bend among all of them (Westfall & Young 1993), and both kernels of a site must agree.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics.bootstrap import student_t_quantile
from ontogeny.statistics.order_test import checkpoint_orders

PhaseVerdict = Literal["fitting then compression", "fitting", "compression", "none"]
_ALPHA = 0.05
_MIN_CHECKPOINTS = 8
"""A bent line has four parameters; fewer checkpoints cannot show its noise."""
_COARSE_GRID, _FINE_GRID = 2, 50
"""Candidate bends per interval between two checkpoints: for the tests, and for the curve itself."""
_MOST_TEST_BENDS = 256
"""Of more candidate bends, evenly spaced ones are tested: each is fitted to a thousand shuffles."""
_PERMUTATIONS = 999
_BLOCK = 2**20
"""Numbers of a table of bends and checkpoints that is held at once."""


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
    p: float = math.nan
    """Corrected p of the order of the checkpoints, where curves are tested together."""


@dataclass(frozen=True, eq=False)
class PhaseFit:
    """The phases of one curve, before the test of its order."""

    phases: TrainingPhases
    """As if the order of the checkpoints were known to matter."""
    explained: Float[Tensor, " order"] | None
    """Share of the variance that the best bend explains under each order of the checkpoints, the true one first; None if untestable."""


def fit_phases(
    steps: Shaped[Tensor, " step"], points: Float[Tensor, " step"], *, level: float = 0.95, seed: int = 0
) -> TrainingPhases:
    """Phases of one curve, with a profile-likelihood interval; checkpoints without a score are left out.

    Three tests compare the curve with shuffles of its checkpoints: whether a bent line explains anything, and whether the slopes before
    and after the bend exceed the steepest ones of any bend in a shuffle.
    """
    fit = fit_bend(steps, points, level=level, seed=seed)
    if fit.explained is None or (p := _p(fit.explained)) <= _ALPHA:
        return fit.phases
    return _by_chance(fit.phases, f"(p = {p:.2g})")


def fit_bend(
    steps: Shaped[Tensor, " step"], points: Float[Tensor, " step"], *, level: float = 0.95, seed: int = 0
) -> PhaseFit:
    """`fit_phases` without the first test, for curves that are tested together."""
    if (steps[1:] <= steps[:-1]).any() or (steps < 0).any():
        raise BadInput(
            f"the steps of a curve must increase from 0 or more, got {steps.tolist()}: sort the checkpoints."
        )
    known = ~points.isnan()
    count = int(known.sum())
    if count < _MIN_CHECKPOINTS:
        return PhaseFit(
            _no_phases(
                f"{count} checkpoint{'s have' if count != 1 else ' has'} a score, phases need {_MIN_CHECKPOINTS}"
            ),
            None,
        )
    x, y = (steps[known].double() + 1).log2(), points[known].double()
    if y.max() - y.min() <= 1e-12 * y.abs().max():
        return PhaseFit(_no_phases("the curve is constant"), None)
    places = tuple(x.tolist())
    coarse, fine = _bent_lines(places, _COARSE_GRID, _MOST_TEST_BENDS), _bent_lines(places, _FINE_GRID)
    orders = checkpoint_orders(count, samples=_PERMUTATIONS, seed=seed)
    fits = coarse.fit(y.index_select(0, orders.flatten()).view(orders.shape))
    explained = 1 - fits.error.amin(1) / (y - y.mean()).square().sum()
    return PhaseFit(_phases(fits, fine, y, level), explained)


def familywise_phases(sites: Sequence[Sequence[PhaseFit]], *, families: int = 1) -> list[list[TrainingPhases]]:
    """The phases of many sites, each with one fit per kernel, at a common error rate of 5 %.

    A site has phases if all its kernels give the same verdict, and if in at most 5 % / `families` of the orders any site explains as
    much under the kernel that explains least.

    Args:
        families: Number of such calls in a report: one a stage.
    """
    least = [
        torch.stack([fit.explained for fit in kernels if fit.explained is not None]).amin(0)
        if kernels and all(fit.explained is not None for fit in kernels)
        else None
        for kernels in sites
    ]
    tested = [shares for shares in least if shares is not None]
    if not tested:
        return [[fit.phases for fit in kernels] for kernels in sites]
    # Curves that lack a checkpoint have other orders; the sample is as good, since orders are drawn independently of the curves.
    best = torch.stack(tested).amax(0)
    looks = f"{len(tested)} site{'s' * (len(tested) > 1)}" + (f" and {families} stages" if families > 1 else "")
    results = []
    for kernels, shares in zip(sites, least, strict=True):
        if shares is None:
            results.append([fit.phases for fit in kernels])
            continue
        p = min(1.0, families * float((best >= shares[0] - 1e-12).double().mean()))
        results.append([_corrected(fit.phases, kernels, p, looks) for fit in kernels])
    return results


def _corrected(phases: TrainingPhases, kernels: Sequence[PhaseFit], p: float, looks: str) -> TrainingPhases:
    if p > _ALPHA:
        return replace(_by_chance(phases, f"(p = {p:.2g}, corrected for {looks})"), p=p)
    verdicts = [fit.phases.verdict for fit in kernels]
    if len(set(verdicts)) > 1:
        reason = f"the kernels disagree: {', '.join(dict.fromkeys(verdicts))}"
        return replace(_no_phases(reason, phases.slope_before, phases.slope_after), p=p)
    return replace(phases, p=p)


def _by_chance(phases: TrainingPhases, p: str) -> TrainingPhases:
    reason = f"the order of the checkpoints could be chance {p}"
    return _no_phases(reason, phases.slope_before, phases.slope_after)


def _phases(fits: "_BentFits", fine: "_BentLines", y: Float[Tensor, " step"], level: float) -> TrainingPhases:
    """The verdict by the slopes before and after the best bend; `fits` are those of all orders on a coarse grid."""
    errors = fine.fit(y[None])
    at = int(errors.error.argmin())
    bend, slope_before, slope_after = fine.bends[at], float(errors.slopes(0)[0, at]), float(errors.slopes(1)[0, at])
    best = int(fits.error[0].argmin())
    (up_before, down_before), (up_after, down_after) = (_significant_signs(fits.t(side), best) for side in (0, 1))
    if up_before and down_after:
        low, high = _profile(fine.bends, errors.error[0], len(y), level)
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


def _significant_signs(t: Float[Tensor, "sample bend"], best: int) -> tuple[bool, bool]:
    """Whether the slope of the first curve at its best bend is above, and whether it is below, those of the others at any bend."""
    low, high = t[1:].amin(1), t[1:].amax(1)  # `aminmax` takes ten times as long
    first = t[:1, best]
    return _p(torch.cat([first, high])) <= _ALPHA, _p(torch.cat([-first, -low])) <= _ALPHA


def _candidate_bends(x: Float[Tensor, " step"], parts: int) -> Float[Tensor, " bend"]:
    """Candidate bends, with at least two checkpoints on each side."""
    inner = x[1:-1]
    share = torch.arange(parts, dtype=x.dtype) / parts
    return torch.cat([(inner[:-1, None] + share * inner.diff()[:, None]).flatten(), inner[-1:]])


@dataclass(frozen=True, eq=False)
class _BentLines:
    """Lines with one bend over the same checkpoints: constant, x, and the part of x after the bend.

    The last is made orthogonal to the first two. A curve that is orthogonal to them too has a product with it that its cumulative sums
    give, so that all bends of a curve cost as much as one pass over its checkpoints.
    """

    x: Float[Tensor, " step"]
    """Centred."""
    bends: Float[Tensor, " bend"]
    shift: float
    """Mean of the checkpoints; `bends` are not centred."""
    last: Int[Tensor, " bend"]
    """The last checkpoint that is not after the bend."""
    norm: Float[Tensor, " bend"]
    """Of the orthogonal part."""
    gain: Float[Tensor, " bend"]
    """Slope of the part after the bend, as a straight line through all checkpoints."""

    def fit(self, curves: Float[Tensor, "sample step"]) -> "_BentFits":
        """Least-squares fits of every curve with every bend."""
        rest = curves - curves.mean(1, keepdim=True)
        slope = rest @ self.x / self.x.square().sum()
        rest.addcmul_(slope[:, None], self.x, value=-1)
        total = rest.square().sum(1, keepdim=True)
        product = rest.cumsum(1)[:, self.last].mul_(self.bends - self.shift)
        product -= rest.mul_(self.x).cumsum(1)[:, self.last]
        product /= self.norm
        return _BentFits(self, slope, product, (total - product.square()).clamp_(min=1e-30))


@dataclass(frozen=True, eq=False)
class _BentFits:
    """Least-squares fits of curves by bent lines."""

    lines: _BentLines
    slope: Float[Tensor, " sample"]
    """Of the straight line."""
    product: Float[Tensor, "sample bend"]
    """With the orthogonal part of the bend, which has norm 1."""
    error: Float[Tensor, "sample bend"]
    """Sum of squares."""

    def slopes(self, side: int) -> Float[Tensor, "sample bend"]:
        """Slope before (side 0) or after (side 1) each bend."""
        return torch.addcmul(self.slope[:, None], self.product, self._share(side))

    def t(self, side: int) -> Float[Tensor, "sample bend"]:
        """Slope over its standard error."""
        spread = (1 / self.lines.x.square().sum() + self._share(side).square()).rsqrt_()
        return self.slopes(side).mul_(self._precision).mul_(spread)

    @functools.cached_property
    def _precision(self) -> Float[Tensor, "sample bend"]:
        """One over the standard deviation of the noise."""
        return (self.error / (len(self.lines.x) - 4)).rsqrt_()

    def _share(self, side: int) -> Float[Tensor, " bend"]:
        return (side - self.lines.gain) / self.lines.norm


@functools.lru_cache(maxsize=16)
def _bent_lines(checkpoints: tuple[float, ...], parts: int, most: int | None = None) -> _BentLines:
    places = torch.tensor(checkpoints, dtype=torch.float64)
    shift = places.mean()
    x, bends = places - shift, _candidate_bends(places, parts)
    if most is not None and len(bends) > most:
        bends = bends[torch.linspace(0, len(bends) - 1, most).round().long()]
    gains, norms = [], []
    for block in (bends - shift).split(max(1, _BLOCK // len(x))):  # type: ignore[no-untyped-call]
        after = (x - block[:, None]).clamp(min=0)
        gain = after @ x / x.square().sum()
        gains.append(gain)
        norms.append((after - after.mean(1, keepdim=True) - gain[:, None] * x).norm(dim=1))
    last = torch.searchsorted(places, bends, right=True) - 1
    return _BentLines(x, bends, float(shift), last, torch.cat(norms), torch.cat(gains))


def _p(statistic: Float[Tensor, " sample"]) -> float:
    """Share of curves that reach the first one, the true curve."""
    return float((statistic >= statistic[0] - 1e-12 * statistic[0].abs()).double().mean())


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
