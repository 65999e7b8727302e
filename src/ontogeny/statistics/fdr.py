"""False-discovery rate: Benjamini–Hochberg adjusted p-values, JRSS-B 57 (1995) 289–300.

Valid for independent and positively dependent tests, such as adjacent sites and steps (Benjamini & Yekutieli 2001).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def q_values(p: Float[Tensor, "*cell"]) -> Float[Tensor, "*cell"]:
    """Smallest false-discovery rate at which each cell is significant, in [p, 1]; a NaN stays NaN and is not counted."""
    flat = p.flatten().double()
    known = (~flat.isnan()).nonzero()[:, 0]
    ordered, order = flat[known].sort(descending=True)
    rank = torch.arange(len(known), 0, -1, dtype=torch.float64)
    adjusted = (ordered * len(known) / rank).cummin(0).values.clamp(max=1.0) if len(known) else ordered
    q = torch.full_like(flat, torch.nan)
    q[known[order]] = adjusted
    return q.reshape(p.shape).to(p.dtype)
