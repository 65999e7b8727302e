"""Linear maps packed for oneDNN while texts are read on a CPU: the same numbers in float32, at about twice the speed of MKL.

PyTorch hands float32 products to MKL, which stays far below what AVX-512 allows on some processors. oneDNN with weights laid
out beforehand does not. Each packed map is held against the plain one before it is used; where they differ, or where oneDNN is
missing, the plain one stays. Architecture-neutral: modules keep their place and their hooks, only `forward` is exchanged.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

TOLERANCE = 1e-5
"""Largest difference to the plain product, relative to its largest entry; float32 sums in another order differ by 1e-6."""
ROWS = 512
"""Rows for which oneDNN lays out the weights: about one batch of tokens."""
LARGEST = 4 * 10**9
"""Bytes of weights beyond which nothing is packed: a packed copy takes as much memory again."""

Forward = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def packed_linears(body: nn.Module) -> Iterator[int]:
    """While open, the linear maps of `body` run packed; gives the number of maps that do."""
    linears = [m for m in body.modules() if type(m) in (nn.Linear, Conv1D)]
    made: list[nn.Module] = []
    try:
        if _worthwhile(linears):
            for linear in linears:
                forward = _packed(linear)
                if forward is not None:
                    linear.forward = forward
                    made.append(linear)
        yield len(made)
    finally:
        for linear in made:
            del linear.forward  # the class's own is underneath


def _worthwhile(linears: list[nn.Module]) -> bool:
    weights = [linear.get_parameter("weight") for linear in linears]
    plain = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
    return plain and torch.backends.mkldnn.is_available() and 0 < sum(w.nbytes for w in weights) <= LARGEST


def _packed(linear: nn.Module) -> Forward | None:
    """The packed product, if oneDNN takes this shape and agrees with the plain one."""
    weight = linear.get_parameter("weight").detach()
    # Conv1D, GPT-2's linear map, stores its weight transposed.
    weight = weight.T.contiguous() if isinstance(linear, Conv1D) else weight
    bias = getattr(linear, "bias", None)
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        probe = torch.linspace(-1, 1, 4 * weight.shape[1]).view(4, -1)
        found, plain = _product(probe, laid_out, bias), torch.nn.functional.linear(probe, weight, bias)
    except (AttributeError, RuntimeError):  # another version of torch, or a processor that oneDNN does not serve
        return None
    if not (found - plain).abs().max() <= TOLERANCE * plain.abs().max():
        return None
    return lambda x: _product(x, laid_out, bias)


def _product(x: Float[Tensor, "*rows i"], laid_out: Tensor, bias: Tensor | None) -> Float[Tensor, "*rows o"]:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "")
    return product
