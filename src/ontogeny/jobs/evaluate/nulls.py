"""Nulls of a steering effect: random directions of equal norm, the same fit on permuted labels, and a sentence before the prompt.

Alpha 0 is the fourth: it changes nothing, so its effect is 0 bit for bit. All p-values of a run are corrected together by
Benjamini–Hochberg; a vector works if its effect, with its interval, is beyond every null, not if it is beyond the unsteered model alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.evaluate.margins import ScoredItems, prepend_text
from ontogeny.steering.controls import EffectWithControls
from ontogeny.steering.methods import SteeringVectors
from ontogeny.steering.steer import Edit, control_edits

SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class EffectWithNulls:
    """An effect on held-out items with its nulls."""

    alpha: float
    shift: Float[Tensor, " item"]
    """Steered minus unsteered margin of each item, nats."""
    random: EffectWithControls
    """Beside random directions of equal norm."""
    permuted_labels: EffectWithControls | None
    """Beside the same fit on permuted labels; None without such fits."""
    random_preference: Float[Tensor, " control"]
    """Mean probability of the continuation that shows the concept, of the two, under each random direction."""

    @property
    def value(self) -> float:
        return float(self.shift.mean())


def measure_with_nulls(
    items: ScoredItems,
    vectors: SteeringVectors,
    choice: str,
    alpha: float,
    *,
    controls: int,
    permuted: Sequence[SteeringVectors] = (),
    base: Float[Tensor, " item"] | None = None,
) -> EffectWithNulls:
    """The effect of one choice at one alpha, of `controls` random edits of equal norm, and of the vectors in `permuted`.

    Args:
        base: unsteered margins, if they are known.
    """
    unsteered = items.scores().margin if base is None else base

    def shift_of(edits: list[Edit]) -> Float[Tensor, " item"]:
        return items.scores(edits).margin - unsteered

    def shifts_of(nulls: Iterable[list[Edit]]) -> tuple[EffectWithControls, Float[Tensor, " control"]]:
        shifts = [shift_of(edits) for edits in nulls]
        means = torch.tensor([float(shift.mean()) for shift in shifts], dtype=torch.float64)
        preference = [float((unsteered + shift).double().sigmoid().mean()) for shift in shifts]
        return EffectWithControls(value, means), torch.tensor(preference, dtype=torch.float64)

    edits = vectors.edits(items.model, choice, alpha)
    shift = shift_of(edits)
    value = float(shift.mean())
    random, preference = shifts_of(control_edits(edits, range(controls)))
    refits = shifts_of(null.edits(items.model, choice, alpha) for null in permuted)[0] if permuted else None
    return EffectWithNulls(alpha, shift, random, refits, preference)


def prompt_baseline(items: ScoredItems, text: str) -> Float[Tensor, " item"]:
    """Change of each margin by a text before its prompt, without any vector."""
    prompted = ScoredItems.of(
        items.model, prepend_text(items.items, text), cached=False, passes=items.passes, template=items.template
    )
    return prompted.scores().margin - items.scores().margin
