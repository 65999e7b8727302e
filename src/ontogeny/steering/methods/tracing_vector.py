"""Tracing vector: the unit difference of the class means times the spread of the projections (arXiv:2402.19465, 1.5)."""

from collections.abc import Sequence

from ontogeny.steering.methods import SteeringVectors, TrainingActivations, mean_difference_vectors
from ontogeny.steering.token_selection import TokenSelection

part = "resid"
choice_axis = "site"
needs_pairs = False
is_ablation = False


def fit(data: TrainingActivations, *, ks: Sequence[int] = (), where: TokenSelection = "last") -> SteeringVectors:
    """One vector per site."""
    vectors, facts = mean_difference_vectors(data)
    shifts = {str(site): ((site, vector),) for site, vector in vectors}
    return SteeringVectors(
        "tracing_vector", choice_axis, shifts, where, scale="std", facts=dict(zip(shifts, facts, strict=True))
    )
