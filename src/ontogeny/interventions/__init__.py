"""Interventions: frozen changes of an activation, an attention pattern or a weight; tensors in, tensors out, no model and no disk.

Each is a callable `h -> h` (with a mask: only where it is True) with a `kind`, `is_noop` (it changes nothing) and `null(seed)`, the
norm-matched control: an edit of equal norm in a random direction. `a >> b` applies first a, then b.
"""

from ontogeny.interventions.ablate import Ablate, Cap, Clamp, Erase
from ontogeny.interventions.add import Add
from ontogeny.interventions.attention import AttentionIntervention, Reweight, SplitSoftmax
from ontogeny.interventions.base import Intervention, NormMatched, Sequential
from ontogeny.interventions.patch import Patch, Zero
from ontogeny.interventions.rank_one import RankOne

__all__ = [
    "Ablate",
    "Add",
    "AttentionIntervention",
    "Cap",
    "Clamp",
    "Erase",
    "Intervention",
    "NormMatched",
    "Patch",
    "RankOne",
    "Reweight",
    "Sequential",
    "SplitSoftmax",
    "Zero",
]
