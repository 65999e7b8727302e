"""Tracing vector as its authors' code makes it: ChnQ/TracingLLM @ bf8d38a (arXiv:2402.19465).

It differs from `tracing_vector` in one point: the class means are those of the first half of the rows, in their order. The spread of
the projections is that of all rows, as in that code.
"""

from collections.abc import Sequence

from ontogeny.errors import SingleClassError
from ontogeny.steering.methods import SteeringVectors, TrainingActivations, mean_difference_vectors
from ontogeny.steering.token_selection import TokenSelection

part = "resid"
choice_axis = "site"
needs_pairs = False
is_ablation = False

_SHARE = 0.5


def fit(data: TrainingActivations, *, ks: Sequence[int] = (), where: TokenSelection = "last") -> SteeringVectors:
    """One vector per site.

    Raises:
        BadInput: the first half of the rows has one class.
    """
    half = int(len(data.y) * _SHARE)
    first = data.y[:half]
    if not half or first.all() or not first.any():
        raise SingleClassError("the first half of the rows", n=half, label=bool(first.any()))
    vectors, facts = mean_difference_vectors(data, rows=half)
    shifts = {str(site): ((site, vector),) for site, vector in vectors}
    return SteeringVectors(
        "tracing_vector_official", choice_axis, shifts, where, scale="std", facts=dict(zip(shifts, facts, strict=True))
    )
