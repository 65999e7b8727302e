"""How much of an unwanted behaviour a vector removes: the part of the probability of unwanted answers that is gone.

A level alone misleads where models differ in how much there is to remove (arXiv:2505.04741), so the part removed is beside what is
left, and both are beside random directions of equal norm. Of the two answers to a test question, the one that the vector is to make rarer
is unwanted; its probability is that among the two.
"""

import math
from collections.abc import Iterator, Mapping

from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.evaluate.margins import share_with_interval, weighted_means
from ontogeny.jobs.evaluate.measure import MethodResult
from ontogeny.jobs.evaluate.nulls import EffectWithNulls
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.statistics.nulls import null_interval

LEAST_UNWANTED = 0.005
"""With a smaller mean probability of unwanted answers in the unsteered model no part of it is computed."""


def removal_rows(method: MethodResult, groups: Tensor, *, seed: int = 0) -> Iterator[Record]:
    """Rows `unwanted_share` and `removed_share` at every alpha, and at equal KL.

    Args:
        groups: Group of each test question.
    """
    choice = {method.choice_axis: method.grid.chosen.choice}
    costs = {cell.alpha: cell.cost for cell in method.grid.cells if cell.choice == method.grid.chosen.choice}
    before = _unwanted(method, method.margins[0])
    value = share_with_interval(before, groups, seed)
    at = {**choice, "alpha": "0", "cost": "0"}
    yield _row("unwanted_share", method, value, len(groups), at, control="unsteered")
    points = [({"alpha": f"{e.alpha:g}", "cost": f"{costs[e.alpha]:.6g}"}, e) for e in method.dose_response]
    if method.nulls_at_equal_kl is not None and isinstance(method.at_equal_kl, tuple):
        target, alpha, _ = method.at_equal_kl
        at_kl = {"alpha": f"{alpha:.4g}", "cost": f"{target:.4g}", "kl": f"{target:.4g}"}
        points.append((at_kl, method.nulls_at_equal_kl))
    for where, effect in points:
        yield from _point_rows(method, effect, before, groups, choice | where, seed)


def _point_rows(
    method: MethodResult,
    effect: EffectWithNulls,
    before: Float[Tensor, " item"],
    groups: Tensor,
    coords: Mapping[str, str],
    seed: int,
) -> Iterator[Record]:
    after, n = _unwanted(method, method.margins[0] + effect.shift), len(before)
    yield _row("unwanted_share", method, share_with_interval(after, groups, seed), n, coords)
    preference = effect.random_preference
    random = 1 - preference if method.desired_sign > 0 else preference
    null = (float(random.mean()), *null_interval(random))
    yield _row("unwanted_share", method, null, len(random), coords, control="random_direction")
    if (level := float(before.mean())) < LEAST_UNWANTED:
        reason = (
            f"unwanted answers of the unsteered model have a probability of {level:.4f}, less than {LEAST_UNWANTED}"
        )
        yield _row("removed_share", method, (math.nan,) * 3, 0, coords, reason=reason)
        return
    removed = 1 - after.mean() / before.mean()
    weights = bootstrap.group_weights(groups, samples=1000, seed=seed)
    left, whole = (weighted_means(part, weights) for part in (after, before))
    ends = bootstrap.percentile_interval(removed, 1 - left / whole, groups=len(groups.unique())).ends
    yield _row("removed_share", method, (float(removed), ends[0], min(ends[1], 1.0)), n, coords)
    drawn = 1 - random / before.mean()
    null = (float(drawn.mean()), *null_interval(drawn))
    yield _row("removed_share", method, null, len(drawn), coords, control="random_direction")


def _unwanted(method: MethodResult, margins: Float[Tensor, " item"]) -> Float[Tensor, " item"]:
    """Probability of the unwanted answer among the two."""
    return (-method.desired_sign * margins.double()).sigmoid()


def _row(
    metric: str,
    method: MethodResult,
    value: tuple[float, float, float],
    n: int,
    coords: Mapping[str, str],
    *,
    control: str | None = None,
    reason: str | None = None,
) -> Record:
    return make_record(
        metric,
        value[0],
        interval=value[1:],
        n=n,
        site=Site.parse(coords["site"]) if "site" in coords else None,
        reason=reason,
        method=method.method,
        control=control,
        split="test",
        coords=coords,
    )
