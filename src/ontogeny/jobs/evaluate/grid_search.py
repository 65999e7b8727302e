"""Grid search of alpha and the site (or the number of heads) on development items: the largest effect under a limit on neutral KL.

The grid of inference-time intervention (arXiv:2306.03341) is K × alpha, that of the other methods site × alpha. The chosen cell is reported
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
from ontogeny.steering.methods import SteeringVectors
from ontogeny.steering.steer import Edits

MAX_NEUTRAL_KL = 0.5
"""Largest KL from the unsteered model on neutral text, nats per token."""
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
    """All cells and the chosen one."""

    cells: tuple[GridCell, ...]
    chosen: GridCell
    note: str
    """Why it was chosen."""


def check_alphas(alphas: Sequence[float]) -> list[float]:
    """Distinct alphas in ascending order, 0 included.

    Raises:
        BadInput: no alpha but 0, or one that is not finite.
    """
    if not all(math.isfinite(alpha) for alpha in alphas):
        raise BadInput(f"`alphas` must be finite numbers such as 0, 1, 2, 4, got {', '.join(map(str, alphas))}.")
    if not any(alphas):
        raise BadInput("`alphas` must have a number other than 0, got an empty grid: try 0, 1, 2, 4.")
    return sorted({0.0, *alphas})


def grid_search(
    items: ScoredItems,
    vectors: SteeringVectors,
    alphas: Sequence[float],
    cost: NeutralKL,
    *,
    most: float = MAX_NEUTRAL_KL,
    desired_sign: float = 1.0,
) -> GridResult:
    """Score every choice at every alpha, and choose the largest effect whose KL on neutral text is at most `most`.

    Args:
        desired_sign: sign of the desired effect, -1 for an ablation.
    """
    base = items.scores().margin
    zero = torch.zeros_like(cost([]))
    cells = []
    for choice in vectors.shifts:
        for alpha in check_alphas([1.0] if vectors.is_ablation else alphas):
            edits = vectors.edits(items.model, choice, alpha)
            shift = items.scores(edits).margin - base if alpha else torch.zeros_like(base)
            cells.append(GridCell(choice, alpha, shift, cost(edits) if alpha else zero))
    tried = [cell for cell in cells if cell.alpha]
    affordable = [cell for cell in tried if cell.cost <= most]
    if not affordable:
        note = f"lowest cost, since each of {len(tried)} cell{'s' * (len(tried) > 1)} costs more than {most:g} nats per token"
        cheapest = min(tried, key=lambda cell: (math.isnan(cell.cost), cell.cost))
        return GridResult(tuple(cells), cheapest, note)
    note = f"largest effect on development items among {len(affordable)} of {len(tried)} cells with KL up to {most:g}"
    best = max(affordable, key=lambda cell: (not math.isnan(cell.effect), desired_sign * cell.effect))
    if desired_sign * best.effect <= 0:
        note += "; none of them moves towards the concept"
    return GridResult(tuple(cells), best, note)
