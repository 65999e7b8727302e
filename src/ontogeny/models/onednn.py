"""Linear maps packed for oneDNN while texts are read on a CPU: the same numbers in float32, at about twice the speed of MKL.

PyTorch hands float32 products to MKL, which stays far below what AVX-512 allows on some processors. oneDNN with weights laid
out beforehand does not. Each shape is held against the plain product before it is used; where they differ, or where oneDNN is
missing, the plain one stays. Architecture-neutral: modules keep their place and their hooks, only `forward` is exchanged.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_TOLERANCE = 1e-5
"""Largest difference to the plain product, relative to its largest entry; float32 sums in another order differ by 1e-6."""
_ROWS_TRIED = 512
"""Rows for which oneDNN lays out the weights: about one batch of tokens."""
_MAX_BYTES = 4 * 10**9
"""Bytes of weights beyond which nothing is packed: a packed copy takes as much memory again."""

_Forward = Callable[[Tensor], Tensor]
_Attributes = tuple[str, list[float], str]
"""What oneDNN does to a product on the way out: name, numbers, variant."""
_PLAIN: _Attributes = ("none", [], "")
_FUSABLE: dict[str, _Attributes] = {
    "GELUActivation": ("gelu", [], "none"),
    "NewGELUActivation": ("gelu", [], "tanh"),
    "GELUTanh": ("gelu", [], "tanh"),
    "ReLU": ("relu", [], ""),
}
"""Non-linearities by the name of their class."""
_KINDS: dict[tuple[type, type, tuple[int, ...]], bool] = {}
"""What was found of each kind of MLP."""


@contextlib.contextmanager
def packed_linears(body: nn.Module) -> Iterator[int]:
    """While open, the linear maps of `body` run packed; gives the number of maps that do."""
    # One that is packed already, by whoever opened this before, stays so.
    linears = [m for m in body.modules() if type(m) in (nn.Linear, Conv1D) and "forward" not in vars(m)]
    made: list[nn.Module] = []
    spared: list[nn.Module] = []
    try:
        if _count_packable(linears):
            fused = _fusable(body)
            for linear in linears:
                activation, attributes = fused.get(linear, (None, _PLAIN))
                forward = _packed(linear, attributes)
                if forward is not None:
                    linear.forward = forward
                    made.append(linear)
                    if activation is not None:
                        activation.forward = _identity
                        spared.append(activation)
        yield len(made)
    finally:
        for module in made + spared:
            del module.forward  # the class's own is underneath


def _fusable(body: nn.Module) -> dict[nn.Module, tuple[nn.Module, _Attributes]]:
    """First maps of plain MLPs (two maps, one non-linearity between them) whose non-linearity oneDNN can apply on the way out."""
    found: dict[nn.Module, tuple[nn.Module, _Attributes]] = {}
    for module in body.modules():
        parts = [part for part in module.children() if not isinstance(part, nn.Dropout)]
        maps = [part for part in parts if type(part) in (nn.Linear, Conv1D)]
        others = [part for part in parts if part not in maps]
        if len(maps) == 2 and len(others) == 1 and type(others[0]).__name__ in _FUSABLE:
            attributes = _FUSABLE[type(others[0]).__name__]
            if _same_mlp(module, maps[0], others[0], attributes):
                found[maps[0]] = others[0], attributes
    return found


def _same_mlp(module: nn.Module, first: nn.Module, activation: nn.Module, attributes: _Attributes) -> bool:
    """Whether the module is map, non-linearity, map: told by what a copy without hooks computes, once for each kind."""
    kind = (type(module), type(activation), tuple(first.get_parameter("weight").shape))
    if kind not in _KINDS:
        inside = first.get_parameter("weight").shape[0 if isinstance(first, Conv1D) else 1]
        probe = torch.linspace(-2, 2, 3 * inside).view(1, 3, inside)
        plain, fused = copy.deepcopy(module), copy.deepcopy(module)
        for part in (*plain.modules(), *fused.modules()):
            part._forward_hooks.clear()
            part._forward_pre_hooks.clear()
        forward = _packed(first, attributes)
        for part, own in zip(fused.modules(), module.modules(), strict=True):
            if own is first and forward:
                part.forward = forward
            if own is activation and forward:
                part.forward = _identity
        expected = plain(probe)
        _KINDS[kind] = bool((fused(probe) - expected).abs().max() <= _TOLERANCE * expected.abs().max())
    return _KINDS[kind]


def _identity(x: Tensor) -> Tensor:
    return x


def _count_packable(linears: list[nn.Module]) -> bool:
    weights = [linear.get_parameter("weight") for linear in linears]
    plain = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
    return plain and torch.backends.mkldnn.is_available() and 0 < sum(w.nbytes for w in weights) <= _MAX_BYTES


def _packed(linear: nn.Module, attributes: _Attributes = _PLAIN) -> _Forward | None:
    """The packed product, if oneDNN takes this shape and agrees with the plain one."""
    weight = _plain_weight(linear)
    if not _agrees(*weight.shape):
        return None
    bias = getattr(linear, "bias", None)
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_TRIED)
    return lambda x: _product(x, laid_out, bias, attributes)


def _plain_weight(linear: nn.Module) -> Float[Tensor, "o i"]:
    weight = linear.get_parameter("weight").detach()
    # Conv1D, GPT-2's linear map, stores its weight transposed.
    return weight.T.contiguous() if isinstance(linear, Conv1D) else weight


@functools.cache
def _agrees(out: int, inside: int) -> bool:
    """Whether the packed product of this shape is the plain one; a property of the processor and of torch, not of the weights."""
    weight = torch.linspace(-1, 1, out * inside).view(out, inside).sin()
    bias, probe = torch.linspace(-1, 1, out), torch.linspace(-1, 1, 4 * inside).view(4, -1)
    try:
        found = _product(probe, torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_TRIED), bias, _PLAIN)
    except (AttributeError, RuntimeError):  # another version of torch, or a processor that oneDNN does not serve
        return False
    plain = torch.nn.functional.linear(probe, weight, bias)
    return bool((found - plain).abs().max() <= _TOLERANCE * plain.abs().max())


def _product(
    x: Float[Tensor, "*rows i"], laid_out: Tensor, bias: Tensor | None, attributes: _Attributes
) -> Float[Tensor, "*rows o"]:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, *attributes)
    return product
