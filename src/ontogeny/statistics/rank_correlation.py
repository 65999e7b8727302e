"""Spearman's correlation of one pair of samples, for tables that need no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rank_correlation(a: Sequence[float] | NDArray[np.floating], b: Sequence[float] | NDArray[np.floating]) -> float:
    """Spearman's correlation; 0 if one side is constant."""
    from scipy.stats import rankdata  # loads for a second, which a chart without siblings does not need

    x, y = rankdata(a), rankdata(b)
    return float(np.corrcoef(x, y)[0, 1]) if x.std() and y.std() else 0.0


def permuted_rank_correlations(
    a: Sequence[float] | NDArray[np.floating],
    b: Sequence[float] | NDArray[np.floating],
    orders: NDArray[np.integer],
) -> NDArray[np.float64]:
    """`rank_correlation` under each order of the first side.

    Args:
        orders: Order × place.
    """
    from scipy.stats import rankdata

    x, y = (ranks - ranks.mean() for ranks in (rankdata(a), rankdata(b)))
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return x[orders] @ y / length if length else np.zeros(len(orders))
