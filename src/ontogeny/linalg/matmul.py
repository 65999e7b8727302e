"""Float32 matrix products on a CPU by oneDNN, about twice as fast as MKL on some processors; otherwise the plain product.

PyTorch uses MKL for them, and oneDNN only for linear layers. oneDNN is compared with the plain product once before it is used.
"""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

_TOLERANCE = 1e-5
"""Maximum difference from the plain product, relative to its largest entry; float32 sums in another order differ by 1e-6."""
_MIN_OPERATIONS = 2**21
"""Below this number of multiplications the overhead of the call dominates."""


def matmul(a: Float[Tensor, "*batch m k"], b: Float[Tensor, "*#batch k n"]) -> Float[Tensor, "*batch m n"]:
    """`a @ b` for matrices or stacks of matrices."""
    if a.dtype != torch.float32 or b.dtype != torch.float32 or a.device.type != "cpu" or b.device.type != "cpu":
        return a @ b
    if a.shape[-2] * a.shape[-1] * b.shape[-1] < _MIN_OPERATIONS or a.requires_grad or b.requires_grad or not _agrees():
        return a @ b
    if a.ndim == 2 and b.ndim == 2:
        return _by_onednn(a, b)
    if a.ndim == 3 and b.ndim == 3 and len(a) == len(b):
        return torch.stack([_by_onednn(one, other) for one, other in zip(a, b, strict=True)])
    return a @ b


def _by_onednn(a: Float[Tensor, "m k"], b: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")
    return product


@functools.cache
def _agrees() -> bool:
    a, b = (torch.linspace(-9, 9, 64 * 64).add(start).sin().view(64, 64) for start in (0, 1))
    try:
        product = _by_onednn(a, b) if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]
    except (AttributeError, RuntimeError):  # another version of torch, or a processor without oneDNN
        return False
    plain = a @ b
    return product is not None and bool((product - plain).abs().max() <= _TOLERANCE * plain.abs().max())
