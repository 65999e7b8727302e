"""What decides the numbers of the refusal panel; `docs/records.md` says what they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ontogeny.errors import BadInput
from ontogeny.steering.refusal_score import REFUSAL_PHRASES


@dataclass(frozen=True)
class RefusalSettings:
    template: str = "{}"
    """How an instruction is put to every stage."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Another template for some of the stages, where each is read in its own way; else the tokenizer's chat template, if it has one."""
    before: str = " "
    """What stands between the template and an answer."""
    phrases: Sequence[str] = REFUSAL_PHRASES
    """With what a refusal begins."""
    strength: float = 1.0
    """What is added, as a multiple of the distance between the means of the stage that it is added to."""
    where: Literal["all", "prompt", "last"] = "all"
    """The tokens that a vector is added to; `last` is the prompt's last one and what is generated."""
    positions: int = 5
    """At most so many tokens at the end are tried, as far as all instructions share them."""
    depth: float = 0.8
    """Share of the blocks behind which a direction is looked for: at the end it would be the answer itself."""
    most: tuple[int, int, int] = (128, 32, 100)
    """Instructions of each kind at most: for the direction, for the choice of layer and position, and for the test."""
    tokens: int = 16
    """Generated for the phrases; 0 leaves them out."""
    crossed: int = 6
    """With more stages than that only the own, the first and the last stage's vectors are generated with; log-odds know all pairs."""
    nulls: int = 20
    """Random directions, each with its opposite; at least one."""
    nulls_said: int = 3
    """The same for the phrases, which cost a generation each."""
    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if "{}" not in self.template or any("{}" not in one for one in self.own.values()):
            raise BadInput(f"a template needs a {{}} where the instruction goes; given {self.template!r}. Write it in.")
        if (
            min(self.nulls, self.samples, self.positions) < 1
            or not 0 < self.depth <= 1
            or self.strength <= 0
            or min(self.most) < 2
        ):
            raise BadInput(
                "nulls, samples and positions count from 1, most from 2, depth is a share, strength above 0. Correct the odd one."
            )
