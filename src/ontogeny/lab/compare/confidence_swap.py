"""Is it these neurons? The rows that they write, taken from another stage, and how much of the other's confidence comes with them."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.lab.steering import writer
from ontogeny.model import Model
from ontogeny.sites import Site


@contextlib.contextmanager
@torch.no_grad()
def swapped(model: Model, rows: Float[Tensor, "neuron d"], chosen: Sequence[int]) -> Iterator[None]:
    """While open, the chosen neurons write the given rows; afterwards their own, bit for bit, whatever happened.

    Raises:
        BadInput: rows of another layer's shape, or a neuron that is not there.
    """
    weight = writer(model, Site("mlp", model.layers))
    if rows.shape != weight.shape or any(not 0 <= n < len(weight) for n in chosen):
        raise BadInput(
            f"rows of {tuple(rows.shape)} do not fit a last MLP of {tuple(weight.shape)}, or a neuron is not there. "
            "Swap between stages of one architecture."
        )
    at = list(chosen)
    before = weight[at].clone()
    try:
        weight[at] = rows[at].to(weight)
        yield
    finally:
        weight[at] = before
