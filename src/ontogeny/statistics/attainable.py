"""Limits of a test against a finite number of controls: the least attainable p and q, and the number of controls needed.

The p-value of an effect beside c controls is at least 1 / (c + 1). After the correction of Benjamini and Hochberg over m effects, an effect
that is alone beyond all of its controls has q = m / (c + 1). So with few controls no effect of many can be significant, whatever its size.
"""

import math

from jaxtyping import Float
from torch import Tensor

from ontogeny.statistics.fdr import q_values


def least_control_p(controls: int) -> float:
    """The smallest p-value that `controls` controls can give."""
    return 1 / (controls + 1)


def least_q(effects: int, controls: int) -> float:
    """The smallest q of an effect that is alone beyond its controls, among `effects` that are corrected together."""
    return min(1.0, effects * least_control_p(controls))


def controls_needed(effects: int, level: float) -> int:
    """The least number of controls with which an effect beyond all of them has a q below `level`, whatever the other effects are."""
    return math.floor(effects / level + 1e-9)


def least_q_beside(p: Float[Tensor, " effect"], at: int, controls: int) -> float:
    """The smallest q that one effect could have had, the p-values of the others being as they are.

    Args:
        p: p-values that are corrected together; a NaN is not counted.
        at: Index of the effect.
        controls: Number of its controls.
    """
    best = p.double().clone()
    best[at] = least_control_p(controls)
    return float(q_values(best)[at])


def too_few_controls(p: Float[Tensor, " effect"], controls: Float[Tensor, " effect"], level: float) -> list[bool]:
    """For each effect whether its controls are too few to tell: no number of them exceeded gives it a q of `level` or less.

    An effect whose own p is above `level`, while its controls could have given a smaller one, is not significant with any number of
    controls, so for it they are enough.

    Args:
        p: p-values that are corrected together; a NaN is not counted.
        controls: Number of controls of each effect.
    """
    q = q_values(p.double()).tolist()
    known: dict[tuple[float, float], bool] = {}
    told = []
    for i, (own, count) in enumerate(zip(p.double().tolist(), controls.tolist(), strict=True)):
        if math.isnan(own) or q[i] <= level or (own > level >= least_control_p(int(count))):
            told.append(False)
            continue
        if (own, count) not in known:  # effects with equal p and controls have the same least q
            known[own, count] = least_q_beside(p, i, int(count)) > level
        told.append(known[own, count])
    return told
