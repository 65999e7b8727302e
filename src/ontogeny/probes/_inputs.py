"""What every fit asks of its input, said once: finite activations, matching rows, two classes of two examples."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput, SingleClassError


def check_activations(method: str, x: Float[Tensor, "site example d"], y: Tensor) -> Float[Tensor, "site example d"]:
    """The activations in at least float32.

    Raises:
        BadInput: rows do not match, or a value is not finite.
    """
    if y.shape != x.shape[1:2]:
        raise BadInput(
            f"{method} was given {x.shape[1]} examples and targets of shape {tuple(y.shape)}. Give one target an example."
        )
    # A sum is finite where all is (or overflows: then each entry is looked at); it takes a fortieth of the time.
    if not x.sum().isfinite() and not x.isfinite().all():
        bad = (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        raise BadInput(
            f"{method} was given activations that are not finite at sites {bad[:8]}. Drop them, or read in float32."
        )
    return x if x.dtype == torch.float64 else x.float()


def class_indicators(method: str, y: Tensor) -> Bool[Tensor, "example k"]:
    """Which examples are positive: one column for binary, one a class for classes.

    Raises:
        OneClass: all examples have one label.
        BadInput: a class with fewer than two examples, or targets that are no labels.
    """
    if y.dtype == torch.bool:
        columns, counts = y[:, None], torch.stack([(~y).sum(), y.sum()])
    elif y.dtype == torch.int64:
        if len(y) and int(y.min()) < 0:
            raise BadInput(f"{method} was given the class index {int(y.min())}. Classes count from 0.")
        columns = y[:, None] == torch.arange(int(y.max()) + 1 if len(y) else 0, device=y.device)
        counts = columns.sum(0)
    else:
        raise BadInput(f"{method} needs labels (bool or int64), given {y.dtype}. Use ridge for numbers.")
    if (counts > 0).sum() < 2:
        raise SingleClassError(method, n=len(y), label=y[0].item() if len(y) else None)
    if (counts < 2).any():
        rare = (counts < 2).nonzero().flatten().tolist()
        raise BadInput(
            f"{method} needs two examples a class: class {rare[0]} has {int(counts[rare[0]])}. Add examples or drop it."
        )
    return columns


def number_target(method: str, y: Tensor) -> Float[Tensor, " example"]:
    """The target as numbers.

    Raises:
        BadInput: not finite, not float, or without any spread.
    """
    if not y.is_floating_point():
        raise BadInput(f"{method} needs numbers (float), given {y.dtype}. Use logistic for labels.")
    if len(y) < 3 or not y.isfinite().all() or y.min() == y.max():
        raise BadInput(
            f"{method} needs at least 3 finite numbers that differ, given {len(y)}. Check the target of this concept."
        )
    return y
