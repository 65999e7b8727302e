"""Parts of the instructions, and the tokens after them at which an answer begins.

Stages are compared in one template and at one position, or each in its own: published pairs of refusal directions differ in both
(arXiv:2504.02904), and part of their difference comes from that.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.errors import BadInput


@dataclass(frozen=True)
class InstructionSplit:
    """One part of the instructions."""

    harmful: tuple[Example, ...]
    harmless: tuple[Example, ...]

    @property
    def all(self) -> tuple[Example, ...]:
        return (*self.harmful, *self.harmless)


def split_groups(
    concept: Concept, *, limits: tuple[int, int, int], seed: int
) -> tuple[InstructionSplit, InstructionSplit, InstructionSplit]:
    """Parts for the direction, the choice of a layer, and the test: whole groups, 2 : 1 : 2, at most `limits` per kind.

    Raises:
        BadInput: a concept that is not binary, or too few groups of one kind.
    """
    if concept.kind != "binary":
        raise BadInput(
            f"`requests` must be a binary concept, got {concept.name} of kind {concept.kind}: name another one."
        )
    kinds = [[e for e in concept.examples if bool(e.target) is harmful] for harmful in (True, False)]
    bad, good = ({e.group for e in kind} for kind in kinds)
    part_of: dict[str, int] = {}
    # Groups of one kind and of both are dealt separately, so that no part lacks one.
    for groups in (bad & good, bad - good, good - bad):
        order = sorted(groups)
        random.Random(seed).shuffle(order)
        part_of |= {group: (0, 2, 1, 0, 2)[i % 5] for i, group in enumerate(order)}
    first, second, third = (
        InstructionSplit(*(tuple(e for e in kind if part_of[e.group] == number)[:limit] for kind in kinds))
        for number, limit in enumerate(limits)
    )
    if any(
        len({e.group for e in kind}) < 2 for part in (first, second, third) for kind in (part.harmful, part.harmless)
    ):
        raise BadInput(
            f"`requests` must fill three parts with two groups of each kind, got {len(kinds[0])} harmful and {len(kinds[1])} harmless "
            f"instructions in {len(bad | good)} groups: give at least ten of each kind, in groups of their own."
        )
    return first, second, third


def count_post_instruction_tokens(rows: Sequence[Int[Tensor, " token"]], *, limit: int) -> int:
    """Number of last tokens that all instructions share because the template adds them; at least 1, at most `limit`."""
    same = 0
    while same < min(limit, *(len(row) for row in rows)) and len({int(row[-1 - same]) for row in rows}) == 1:
        same += 1
    return max(1, same)
