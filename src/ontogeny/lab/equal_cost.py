"""Vectors compared at equal cost: the alpha at which each moves the model as far from itself on neutral text."""

import math
from collections.abc import Callable

from ontogeny.errors import BadInput


def alpha_at(cost: Callable[[float], float], target: float, *, largest: float = 1e4, tolerance: float = 0.01) -> float:
    """The alpha whose cost is the target, to a share of `tolerance` of it; `cost(alpha)` grows from 0, as a divergence does.

    Raises:
        BadInput: a target that is not above 0, or one that no alpha up to `largest` reaches.
    """
    if not 0 < target < math.inf:
        raise BadInput(f"a cost to compare at is a number above 0, not {target}. Try 0.1 nats per token.")
    low, high = 0.0, 1.0
    while cost(high) < target:
        low, high = high, 2 * high
        if high > largest:
            raise BadInput(f"no alpha up to {largest:g} costs {target:g}. Compare at a smaller cost.")
    for _ in range(60):
        middle = (low + high) / 2
        found = cost(middle)
        if abs(found - target) <= tolerance * target:
            return middle
        low, high = (middle, high) if found < target else (low, middle)
    raise BadInput(f"the cost jumps over {target:g} near alpha {high:.4g}. Compare at another cost.")
