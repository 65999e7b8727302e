"""Directional ablation: the difference of the class means is ablated from everything that writes into the stream (arXiv:2406.11717)."""

from collections.abc import Sequence

from ontogeny.steering.methods import SteeringVectors, TrainingActivations, mean_difference_vectors
from ontogeny.steering.token_selection import TokenSelection

part = "resid"
choice_axis = "site"
needs_pairs = False
is_ablation = True


def fit(data: TrainingActivations, *, ks: Sequence[int] = (), where: TokenSelection = "last") -> SteeringVectors:
    """One vector per site, ablated at all tokens whatever `where` is."""
    shifts = {str(site): ((site, vector),) for site, vector in mean_difference_vectors(data)[0]}
    return SteeringVectors("ablate", choice_axis, shifts, "all", is_ablation)
