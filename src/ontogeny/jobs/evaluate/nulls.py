"""What an effect has to beat: random directions as long, the same fit on permuted labels, and a sentence in front of the prompt.

Alpha 0 is the fourth: it is no edit at all, so its effect is 0 bit for bit. What was tried is corrected by Benjamini–Hochberg over
all of it; a vector works where it beats every null, its interval included, and not where it beats the unsteered model alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.evaluate.margins import ScoredItems, prepend_text
from ontogeny.jobs.evaluate.steering_vectors import SteeringVectors
from ontogeny.steering.controls import EffectWithControls
from ontogeny.steering.steer import control_edits

SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class EffectWithNulls:
    """An effect on held-out items beside its nulls."""

    alpha: float
    shift: Float[Tensor, " item"]
    """Steered minus unsteered margin of each item, nats."""
    random: EffectWithControls
    """Beside random directions of the same length."""
    shuffled: EffectWithControls | None
    """Beside the same fit on permuted labels; None where it was not asked for."""

    @property
    def value(self) -> float:
        return float(self.shift.mean())


def measure_with_nulls(
    asked: ScoredItems,
    recipe: SteeringVectors,
    choice: str,
    alpha: float,
    *,
    controls_: int,
    others: Sequence[SteeringVectors] = (),
    base: Float[Tensor, " item"] | None = None,
) -> EffectWithNulls:
    """The effect of one choice at one alpha, of as many random edits as large, and of the recipes in `others`."""
    model, bare = asked.model, asked.scores().margin if base is None else base
    edits = recipe.edits(model, choice, alpha)
    shift = asked.scores(edits).margin - bare

    def moved(one: object) -> float:
        return float((asked.scores(one).margin - bare).mean())  # type: ignore[arg-type]

    random = torch.tensor([moved(one) for one in control_edits(edits, range(controls_))], dtype=torch.float64)
    again = [moved(other.edits(model, choice, alpha)) for other in others]
    value = float(shift.mean())
    shuffled = EffectWithControls(value, torch.tensor(again, dtype=torch.float64)) if again else None
    return EffectWithNulls(alpha, shift, EffectWithControls(value, random), shuffled)


def prompt_baseline(
    asked: ScoredItems, text: str, *, base: Float[Tensor, " item"] | None = None
) -> Float[Tensor, " item"]:
    """What a text in front of each prompt does to its margin, without any vector."""
    bare = asked.scores().margin if base is None else base
    return (
        ScoredItems.of(asked.model, prepend_text(asked.items, text), cached=False, passes=asked.passes).scores().margin
        - bare
    )
