"""Checkpoint and stage: one saved state of a run, and the ordered checkpoints of one phase of training."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.records import checkpoint_label


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of a run."""

    source: str
    """Repository on the Hub, or a local folder."""
    revision: str | None = None
    """Branch or tag on the Hub; None for a local folder."""
    stage: str = "pretrain"
    step: int | None = None
    """None if unknown; such a model is last in its stage."""
    tokens: float | None = None
    train_seed: int | None = None
    commit: str | None = None
    """Commit of the branch when the lineage was opened."""
    subfolder: str = ""
    """Folder of the model inside the revision; "" for its top."""
    off_trajectory: str = ""
    """Why it does not lie on the path of its stage: `annealed`, `averaged` or `branch`; "" if it does."""
    data_share: float | None = None
    """Share of the data that sibling stages differ in, from 0 to 1; None outside such stages."""

    def __post_init__(self) -> None:
        if self.data_share is not None and not 0 <= self.data_share <= 1:
            raise BadInput(f"`data_share` of the stage {self.stage} must be from 0 to 1, got {self.data_share:g}.")
        for what, number in (("step", self.step), ("training seed", self.train_seed)):
            if number is not None and not -(2**63) <= number < 2**63:
                raise BadInput(
                    f"the {what} of {self.source} must fit in 64 bits, got {number}: rename it, or correct its file."
                )

    @property
    def name(self) -> str:
        """`step1000`, `checkpoint-500`, …: the folder in the revision, the branch or the folder name; of a link its own name."""
        return self.subfolder or self.revision or Path(os.path.abspath(self.source)).name

    @property
    def label(self) -> str:
        """The step with its stage, as people read it: base 1,200; the name where the step is unknown."""
        return f"{self.stage} {self.name}" if self.step is None else checkpoint_label(self.stage, self.step)

    @property
    def branch(self) -> str:
        """Branch or tag on the Hub, by default `main`."""
        return self.revision or "main"

    @property
    def hub_place(self) -> tuple[str, str, str | None, str]:
        """Repository, branch, commit and folder of a checkpoint on the Hub."""
        return self.source, self.branch, self.commit, self.subfolder

    def path_of(self, name: str) -> str:
        """Path of one of its files inside the revision."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    @property
    def is_local(self) -> bool:
        """Whether it is a local folder."""
        return self.revision is None


@dataclass(frozen=True)
class Stage:
    """One phase of training (`pretrain`, `sft`, …): checkpoints ordered by step."""

    name: str
    checkpoints: tuple[Checkpoint, ...]
    parent: str | None = None
    """The stage that it continues; None for an independent run."""
    off_trajectory: str = ""
    """Why its steps do not follow from its parent's by training: `annealed`, `averaged` or `branch`; "" if they do."""


def sort_by_step(checkpoints: Iterable[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Sort by step; checkpoints without a step come last."""
    return tuple(sorted(checkpoints, key=lambda c: (c.step is None, c.step or 0)))
