"""Alpha, and the site or the number of heads, chosen on development items alone: the largest effect whose cost is bearable.

The grid of inference-time intervention (arXiv:2306.03341) is K × alpha, that of a vector site × alpha. What is chosen here is reported
on other groups, never on these. Every cell scores the same prompts, which run once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.jobs.evaluate.margins import ScoredItems
from ontogeny.jobs.evaluate.steering_vectors import SteeringVectors
from ontogeny.steering.steer import Edits

MAX_NEUTRAL_KL = 0.5
"""Nats per token that the model may move from itself on neutral text."""
NeutralKL = Callable[[Edits], Tensor]
"""KL from the unsteered model on each neutral text, nats per token."""


@dataclass(frozen=True, eq=False)
class GridCell:
    """One choice at one alpha, on the development items."""

    choice: str
    alpha: float
    shift: Float[Tensor, " item"]
    """Steered minus unsteered margin of each item, nats."""
    divergence: Float[Tensor, " text"]
    """KL from the unsteered model on each neutral text, nats per token."""

    @property
    def cost(self) -> float:
        return float(self.divergence.mean())

    @property
    def effect(self) -> float:
        return float(self.shift.mean())


@dataclass(frozen=True, eq=False)
class GridResult:
    """All cells that were tried, and the one that was chosen."""

    cells: tuple[GridCell, ...]
    chosen: GridCell
    note: str
    """How it was chosen."""


def check_alphas(alphas: Sequence[float]) -> list[float]:
    """Sorted, each once; 0 is always there.

    Raises:
        BadInput: none but 0, or one that is no finite number.
    """
    if not all(math.isfinite(one) for one in alphas):
        raise BadInput(f"--alphas takes finite numbers, not {', '.join(map(str, alphas))}. Try --alphas 0,1,2,4.")
    if not any(alphas):
        raise BadInput("the grid of alphas is empty: 0 changes nothing. Try --alphas 0,1,2,4.")
    return sorted({0.0, *alphas})


def grid_search(
    asked: ScoredItems,
    recipe: SteeringVectors,
    alphas: Sequence[float],
    cost: NeutralKL,
    *,
    most: float = MAX_NEUTRAL_KL,
    wish: float = 1.0,
) -> GridResult:
    """Try every choice at every alpha; `wish` is the sign of the effect that is wanted (−1 where a direction is taken out)."""
    base = asked.scores().margin
    free = torch.zeros_like(cost([]))
    cells = []
    for choice in recipe.shifts:
        for alpha in check_alphas([1.0] if recipe.ablates else alphas):
            edits = recipe.edits(asked.model, choice, alpha)
            shift = asked.scores(edits).margin - base if alpha else torch.zeros_like(base)
            cells.append(GridCell(choice, alpha, shift, cost(edits) if alpha else free))
    tried = [cell for cell in cells if cell.alpha]
    bearable = [cell for cell in tried if cell.cost <= most]
    if bearable:
        note = f"largest effect on development items among {len(bearable)} of {len(tried)} cells with KL up to {most:g}"
        best = max(bearable, key=lambda cell: wish * cell.effect)
        none = "" if wish * best.effect > 0 else "; none of them moves towards the concept"
        return GridResult(tuple(cells), best, note + none)
    note = f"every one of {len(tried)} cells costs more than {most:g} nats per token; the cheapest was taken"
    return GridResult(tuple(cells), min(tried, key=lambda cell: cell.cost), note)
