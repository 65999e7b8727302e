"""Splits and folds by group: examples of one group (question, pair, template) are always on the same side.

Groups are assigned one by one, the largest first, each to the side that lacks most of its share of the group's classes.
"""

import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics.unique import unique_inverse, unique_values

_TargetKind = Literal["binary", "classes", "number"]
_TARGET_BINS = 5
"""Quantile bins by which a number is balanced over the sides."""


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the examples on each side, ascending."""

    train: Int[Tensor, " train"]
    test: Int[Tensor, " test"]


def number_groups(names: Iterable[Hashable]) -> Int[Tensor, " example"]:
    """Group names as numbers, in the order in which they appear; -1 for None."""
    numbers: dict[Hashable, int] = {}
    ids = [-1 if name is None else numbers.setdefault(name, len(numbers)) for name in names]
    return torch.tensor(ids, dtype=torch.int64)


def group_split(
    groups: Int[Tensor, " example"],
    y: Shaped[Tensor, " example"],
    kind: _TargetKind,
    *,
    test: float = 0.3,
    seed: int = 0,
) -> Split:
    """Two sides without a common group and with similar class shares.

    Raises:
        BadInput: there are fewer than two groups, or a side would lack a class.
    """
    if not 0 < test < 1:
        raise BadInput(f"the test share must lie between 0 and 1, got {test}: 0.3 is usual.")
    side = _assign_sides(groups, _classes(y, kind), [1 - test, test], seed)
    if kind != "number":
        _check_classes(y, side, 2, "use a larger test share or more groups")
    return Split(train=(side == 0).nonzero()[:, 0], test=(side == 1).nonzero()[:, 0])


def group_folds(
    groups: Int[Tensor, " example"], y: Shaped[Tensor, " example"], kind: _TargetKind, *, k: int = 5, seed: int = 0
) -> Int[Tensor, " example"]:
    """The fold (0 … k-1) of each example: no group in two folds, similar class shares.

    Raises:
        BadInput: there are fewer groups than folds, or a fold would lack a class.
    """
    if k < 2:
        raise BadInput(f"cross-validation needs at least 2 folds, got {k}: use 5.")
    fold = _assign_sides(groups, _classes(y, kind), [1 / k] * k, seed)
    if kind != "number":
        _check_classes(y, fold, k, "use fewer folds or more groups")
    return fold


def cross_fit_folds(
    groups: Int[Tensor, " example"], y: Shaped[Tensor, " example"], kind: _TargetKind, *, k: int = 5, seed: int = 0
) -> Int[Tensor, " example"]:
    """The fold of each example by `group_folds`: k folds, or as many as the rarest class has groups or half of all groups, at least 2.

    A fold of one group among folds of two has a quarter of their pairs: the score would then rest on the larger folds.

    Raises:
        BadInput: a class is in fewer than two groups.
    """
    held = [len(unique_values(groups[y == label])) for label in unique_values(y)] if kind != "number" else []
    for count in range(min(k, len(unique_values(groups)) // 2, *held), 2, -1):
        try:
            return group_folds(groups, y, kind, k=count, seed=seed)
        except BadInput:  # a greedy assignment may leave a fold without a class
            continue
    return group_folds(groups, y, kind, k=2, seed=seed)


def balanced_folds(
    groups: Int[Tensor, " example"], y: Float[Tensor, " example"], *, folds: int, seed: int
) -> tuple[Int[Tensor, " example"], int]:
    """Fold of each example and the number of folds, at most the number of groups; each fold gets groups of every mean target.

    Unlike `group_folds` it takes any float target and never fails, so a fold may lack a class.
    """
    names, inverse = torch.unique(groups, return_inverse=True)
    count = len(names)
    size = y.new_zeros(count).index_add_(0, inverse, torch.ones_like(y))
    mean = y.new_zeros(count).index_add_(0, inverse, y) / size
    # Groups sorted by mean target, then size, then at random, are dealt to the folds in turn.
    chance = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(y.device)
    order = chance[size[chance].argsort(descending=True, stable=True)]
    order = order[mean[order].argsort(descending=True, stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count, device=y.device)
    used = min(folds, count)
    return (rank % used)[inverse], used


def contiguous_split(n: int, *, test: float = 0.2) -> Split:
    """First examples to train, last to test, ignoring groups: the tracing paper's split (arXiv:2402.19465), which truncates.

    Raises:
        BadInput: a side would be empty.
    """
    cut = int(n * (1 - test))
    if not 0 < cut < n:
        raise BadInput(
            f"both sides of a split need examples, got {n} examples with a test share of {test}: add examples."
        )
    return Split(train=torch.arange(cut), test=torch.arange(cut, n))


def _classes(y: Shaped[Tensor, " example"], kind: _TargetKind) -> Int[Tensor, " example"]:
    if kind == "number":
        edges = torch.quantile(y.double(), torch.linspace(0, 1, _TARGET_BINS + 1, dtype=torch.float64)[1:-1])
        y = torch.bucketize(y.double(), edges)
    return unique_inverse(y)[1]


def _assign_sides(
    groups: Int[Tensor, " example"], classes: Int[Tensor, " example"], shares: Sequence[float], seed: int
) -> Int[Tensor, " example"]:
    """The side of each example: greedy, largest groups first, groups of equal size in a seeded order."""
    number, member = unique_inverse(groups)
    if number < len(shares):
        raise BadInput(
            f"{len(shares)} sides need as many groups, got {number} group{'s' * (number != 1)} of {len(groups)} examples: "
            "add examples of other groups, or make each example a group."
        )
    table = torch.zeros(number, int(classes.max()) + 1, dtype=torch.long)
    counts: list[list[int]] = table.index_put_((member, classes), torch.tensor(1), accumulate=True).tolist()
    order = list(range(number))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -sum(counts[group]))
    totals = [sum(column) for column in zip(*counts, strict=True)]
    have = [[0.0] * len(totals) for _ in shares]
    side_of, filled = [0] * number, [0] * len(shares)
    # Most groups are as large as others, and each one changes a single side: what is known of the other sides holds.
    known: dict[tuple[int, ...], list[tuple[int, float]]] = {}
    for group in order:
        costs = known.setdefault(tuple(counts[group]), [(-1, 0.0)] * len(shares))
        for s, share in enumerate(shares):
            if costs[s][0] != filled[s]:
                costs[s] = filled[s], _overfill(counts[group], have[s], totals, share)
        side = min(range(len(shares)), key=lambda s: costs[s][1])
        side_of[group] = side
        filled[side] += 1
        have[side] = [a + b for a, b in zip(have[side], counts[group], strict=True)]
    return torch.tensor(side_of)[member]


def _overfill(count: Sequence[int], have: Sequence[float], totals: Sequence[int], share: float) -> float:
    """How far one more group would fill a side beyond its share, summed over the group's classes."""
    over = [n / total * (h + n / 2 - share * total) / share for n, h, total in zip(count, have, totals, strict=True)]
    return sum(over) + 1e-9 * sum(have) / share


def _check_classes(y: Shaped[Tensor, " example"], side: Int[Tensor, " example"], sides: int, advice: str) -> None:
    every = unique_values(y)
    for s in range(sides):
        inside, outside = unique_values(y[side == s]), unique_values(y[side != s])
        if len(outside) < len(every):
            missing = [label for label in every.tolist() if label not in outside.tolist()]
            raise BadInput(
                f"all examples labelled {missing[0]!r} fall on one side, too few groups hold them: {advice}, or drop the class."
            )
        if len(inside) < 2:
            raise BadInput(
                f"one side has only examples labelled {inside.tolist()[0]!r} of {len(every)} class"
                f"{'es' * (len(every) != 1)}: {advice}, or add examples of another class."
            )
