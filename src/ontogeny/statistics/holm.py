"""Family-wise correction by Holm's step-down, Scand. J. Stat. 6 (1979) 65–70; valid under any dependence of the tests."""

import torch
from jaxtyping import Float
from torch import Tensor


def holm_p(p: Float[Tensor, " test"]) -> Float[Tensor, " test"]:
    """Adjusted p of each test: the family-wise rate at which it is rejected; a NaN stays NaN and is not counted."""
    known = (~p.isnan()).nonzero()[:, 0]
    ordered, order = p[known].double().sort()
    left = torch.arange(len(known), 0, -1, dtype=torch.float64)
    adjusted = torch.full_like(p, torch.nan, dtype=torch.float64)
    adjusted[known[order]] = (ordered * left).cummax(0).values.clamp(max=1.0) if len(known) else ordered
    return adjusted
