"""Interventions: frozen changes of an activation, an attention pattern or a weight; tensors in, tensors out, no model and no disk.

Each is a callable `h -> h` (with a mask: only where it is True), has its `kind`, says with `nothing` that it would change nothing, and
has `null(seed)`, the norm-matched control: an edit as large that knows nothing. `a >> b` does first a, then b.
"""

from ontogeny.interventions.ablate import Ablate, Clamp, Erase
from ontogeny.interventions.add import Add
from ontogeny.interventions.attention import Reweight
from ontogeny.interventions.base import Intervention, NormMatched, Sequential
from ontogeny.interventions.patch import Patch, Zero
from ontogeny.interventions.rank_one import RankOne

__all__ = [
    "Ablate",
    "Add",
    "Clamp",
    "Erase",
    "Intervention",
    "NormMatched",
    "Patch",
    "RankOne",
    "Reweight",
    "Sequential",
    "Zero",
]
