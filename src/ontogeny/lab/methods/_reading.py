"""Activations at one token of each text, for methods that start from texts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.lab.capture import capture
from ontogeny.lab.passes import Read, Workload
from ontogeny.model import Model
from ontogeny.sites import Site


def at_token(
    model: Model, rows: Sequence[Int[Tensor, " token"]], tokens: Sequence[int], sites: Sequence[Site]
) -> Float[Tensor, "site example d"]:
    """What stands at one token of each row; sites of one width, in the order given."""
    reads = tuple(Read(i, _one(len(row), token)) for i, (row, token) in enumerate(zip(rows, tokens, strict=True)))
    content = tuple(torch.full((len(row),), 1 / len(row)) for row in rows)
    seen = capture(model, Workload(tuple(tuple(row.tolist()) for row in rows), reads, content=content), sites)
    return torch.stack([seen.parts[site.part][seen.sites[site.part].index(site)] for site in sites]).cpu()


def _one(length: int, token: int) -> Float[Tensor, " token"]:
    weights = torch.zeros(length)
    weights[token] = 1.0
    return weights
