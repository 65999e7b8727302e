"""Linear layers with weights packed for oneDNN, for inference on a CPU: the same float32 numbers at about twice the speed of MKL.

PyTorch uses MKL for float32 products, which is slow with AVX-512 on some processors; oneDNN with weights packed beforehand is not.
Each shape is compared with the plain product before use; where they differ, or without oneDNN, the plain product is used. Works
for all architectures: modules and hooks stay in place, only `forward` is replaced.
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
"""Maximum difference from the plain product, relative to its largest entry; float32 sums in another order differ by 1e-6."""
_ROWS_TRIED = 512
"""Number of rows for which oneDNN packs the weights: about one batch of tokens."""
_MAX_BYTES = 4 * 10**9
"""No packing above this size of the weights: the packed copy doubles the memory."""

_Forward = Callable[[Tensor], Tensor]
_Attributes = tuple[str, list[float], str]
"""The operation that oneDNN fuses after a product: name, numbers, variant."""
_PLAIN: _Attributes = ("none", [], "")
_FUSABLE: dict[str, _Attributes] = {
    "GELUActivation": ("gelu", [], "none"),
    "NewGELUActivation": ("gelu", [], "tanh"),
    "GELUTanh": ("gelu", [], "tanh"),
    "ReLU": ("relu", [], ""),
}
"""Non-linearities by class name."""
_KINDS: dict[tuple[type, type, tuple[int, ...]], bool] = {}
"""Cached result for each kind of MLP."""


@contextlib.contextmanager
def packed_linears(body: nn.Module) -> Iterator[int]:
    """Run the linear layers of `body` packed; yields the number of packed layers."""
    # Layers packed by an outer call stay packed.
    linears = [m for m in body.modules() if type(m) in (nn.Linear, Conv1D) and "forward" not in vars(m)]
    packed: list[nn.Module] = []
    skipped: list[nn.Module] = []
    try:
        if _count_packable(linears):
            fused = _fusable(body)
            for linear in linears:
                activation, attributes = fused.get(linear, (None, _PLAIN))
                forward = _packed(linear, attributes)
                if forward is not None:
                    linear.forward = forward
                    packed.append(linear)
                    if activation is not None:
                        activation.forward = _identity
                        skipped.append(activation)
        yield len(packed)
    finally:
        for module in packed + skipped:
            del module.forward  # restores the method of the class


def _fusable(body: nn.Module) -> dict[nn.Module, tuple[nn.Module, _Attributes]]:
    """First layers of plain MLPs (linear, non-linearity, linear) whose non-linearity oneDNN can fuse."""
    fusable: dict[nn.Module, tuple[nn.Module, _Attributes]] = {}
    for module in body.modules():
        parts = [part for part in module.children() if not isinstance(part, nn.Dropout)]
        maps = [part for part in parts if type(part) in (nn.Linear, Conv1D)]
        others = [part for part in parts if part not in maps]
        if len(maps) == 2 and len(others) == 1 and type(others[0]).__name__ in _FUSABLE:
            attributes = _FUSABLE[type(others[0]).__name__]
            if _same_mlp(module, maps[0], others[0], attributes):
                fusable[maps[0]] = others[0], attributes
    return fusable


def _same_mlp(module: nn.Module, first: nn.Module, activation: nn.Module, attributes: _Attributes) -> bool:
    """Whether the module computes linear, non-linearity, linear: tested on a copy without hooks, once for each kind."""
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
    """The packed product, if oneDNN supports this shape and agrees with the plain product."""
    weight = _plain_weight(linear)
    if not _agrees(*weight.shape):
        return None
    bias = getattr(linear, "bias", None)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_TRIED)
    return lambda x: _product(x, packed, bias, attributes)


def _plain_weight(linear: nn.Module) -> Float[Tensor, "o i"]:
    weight = linear.get_parameter("weight").detach()
    # GPT-2's Conv1D stores its weight transposed.
    return weight.T.contiguous() if isinstance(linear, Conv1D) else weight


@functools.cache
def _agrees(out: int, inside: int) -> bool:
    """Whether the packed product of this shape equals the plain one; depends on the processor and on torch, not on the weights."""
    weight = torch.linspace(-1, 1, out * inside).view(out, inside).sin()
    bias, probe = torch.linspace(-1, 1, out), torch.linspace(-1, 1, 4 * inside).view(4, -1)
    try:
        packed = _product(probe, torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_TRIED), bias, _PLAIN)
    except (AttributeError, RuntimeError):  # another version of torch, or a processor without oneDNN
        return False
    plain = torch.nn.functional.linear(probe, weight, bias)
    return bool((packed - plain).abs().max() <= _TOLERANCE * plain.abs().max())


def _product(
    x: Float[Tensor, "*rows i"], packed: Tensor, bias: Tensor | None, attributes: _Attributes
) -> Float[Tensor, "*rows o"]:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, *attributes)
    return product
