"""Three splits of a concept by group: train fits the probes, choose picks site and calibration, test says how good they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics.splits import group_split

_TEST, _CHOOSE = 0.375, 0.25
_LEAST_OF_CLASS = {"train": 3, "choose": 3, "test": 5}
"""Examples of each class that a split needs: below 5 no interval of an AUROC is right."""


@dataclass(frozen=True, eq=False)
class ThreeSplits:
    """Indices of the examples of each split, ascending; no group is in two of them."""

    train: Int[Tensor, " train"]
    choose: Int[Tensor, " choose"]
    test: Int[Tensor, " test"]

    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {name: len(rows) for name, rows in vars(self).items()}


def three_splits(
    name: str, y: Int[Tensor, " example"], groups: Int[Tensor, " example"], classes: int, *, seed: int = 0
) -> ThreeSplits:
    """Three eighths of the groups to fit, a quarter to choose and three eighths to test.

    Args:
        name: Of the concept, for the error.

    Raises:
        BadInput: a split would have too few examples of a class.
    """
    try:
        outer = group_split(groups, y, "classes", test=_TEST, seed=seed)
        inner = group_split(groups[outer.train], y[outer.train], "classes", test=_CHOOSE / (1 - _TEST), seed=seed)
    except BadInput as error:
        raise BadInput(
            f"{name} cannot be divided into three splits ({str(error).rpartition(': ')[0]}): add groups."
        ) from None
    splits = ThreeSplits(outer.train[inner.train], outer.train[inner.test], outer.test)
    for split, rows in vars(splits).items():
        counts = y[rows].bincount(minlength=classes)
        if int(counts.min()) < (least := _LEAST_OF_CLASS[split]):
            rare = int(counts.argmin())
            raise BadInput(
                f"{name} must have {least} examples of each class for {split}, one of three splits, got {int(counts[rare])} of class "
                f"{rare}: add groups of this class."
            )
    assert not set(groups[splits.train].tolist()) & set(
        torch.cat([groups[splits.choose], groups[splits.test]]).tolist()
    )
    return splits
