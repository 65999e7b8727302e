"""Contrastive activation addition: the mean difference of pairs at the token where their answers part (arXiv:2312.06681)."""

from collections.abc import Sequence

from ontogeny.errors import BadInput
from ontogeny.steering.methods import SteeringVectors, TrainingActivations
from ontogeny.steering.token_selection import TokenSelection

part = "resid"
choice_axis = "site"
needs_pairs = True
is_ablation = False


def fit(data: TrainingActivations, *, ks: Sequence[int] = (), where: TokenSelection = "last") -> SteeringVectors:
    """One vector per site."""
    if data.pair_differences is None:
        raise BadInput("contrastive activation addition needs contrast pairs: add `pair_differences`.")
    vectors = data.pair_differences.mean(1).float()
    shifts = {str(site): ((site, vector),) for site, vector in zip(data.sites["resid"], vectors, strict=True)}
    facts = {choice: {"gap": float(vector.norm())} for choice, ((_, vector),) in shifts.items()}
    return SteeringVectors("caa", choice_axis, shifts, where, from_pairs=True, scale="gap", facts=facts)
