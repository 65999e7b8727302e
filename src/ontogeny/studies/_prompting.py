"""Ways to ask a conditional denoiser for a combination of two concepts, and what the path of its outputs over training looks like.

For studies of hidden capabilities (arXiv:2406.19370). A condition has two concepts and two places; concepts are 0 between their classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Embed = Callable[[Float[Tensor, "row 4"]], Float[Tensor, "row width"]]
OVER_PROMPTS = (1.5, 2.0, 3.0, 4.0)
LATENT_MOVES = (1.0, 1.5, 2.0, 3.0)
_SATURATED = 0.9


@dataclass(frozen=True, eq=False)
class Prompts:
    """Embeddings of conditions, one list for each way of asking."""

    plain: Float[Tensor, "row width"]
    over: tuple[Float[Tensor, "row width"], ...]
    """Over-prompting: concepts further out, one for each strength."""
    latent: tuple[Float[Tensor, "row width"], ...]
    """Latent interventions: the embedding moved along both concepts, from that of neither."""
    nulls: tuple[tuple[tuple[Float[Tensor, "row width"], ...], tuple[Float[Tensor, "row width"], ...]], ...]
    """For each draw the same two with moves as long along the places, and in a random direction of the embedding."""

    @property
    def all(self) -> list[Float[Tensor, "row width"]]:
        """Plain, over, latent, then the nulls."""
        return [self.plain, *self.over, *self.latent, *(p for draw in self.nulls for moves in draw for p in moves)]


def ways_of_asking(
    embed: Embed,
    condition: Float[Tensor, "row 4"],
    middle: Float[Tensor, "4 4"],
    generator: torch.Generator,
    *,
    draws: int,
    strengths: Sequence[float] = OVER_PROMPTS,
    moves: Sequence[float] = LATENT_MOVES,
) -> Prompts:
    """Prompts for the combination of both concepts.

    Args:
        condition: Complete conditions of that combination.
        middle: Conditions of the middles of the four classes: neither concept, the second, the first, both.
        draws: Unrelated moves of each kind; 0 leaves the nulls out.
    """
    embedded, corners = embed(condition), embed(middle)
    # Over-prompting goes outward from the middle of all classes; the latent move goes from the class without either concept.
    outward = middle[3] * torch.tensor([1.0, 1.0, 0.0, 0.0])
    along = (corners[1] - corners[0]) + (corners[2] - corners[0])
    start = embedded - embed(middle[3:]) + corners[0]
    nulls = []
    for _ in range(draws):
        angle = float(torch.rand(1, generator=generator)) * 2 * math.pi
        beside = torch.tensor([0.0, 0.0, math.cos(angle), math.sin(angle)]) * outward.norm()
        random = torch.randn(along.shape, generator=generator)
        nulls.append(
            (
                tuple(embed(condition + (k - 1) * beside) for k in strengths),
                tuple(embedded + (k - 1) * random * along.norm() / random.norm() for k in moves),
            )
        )
    return Prompts(
        embedded,
        tuple(embed(condition + (k - 1) * outward) for k in strengths),
        tuple(start + k * along for k in moves),
        tuple(nulls),
    )


def best_on_other_half(scores: Sequence[np.ndarray]) -> float:
    """The score on one half of the samples of the strength that is best on the other half, averaged over both halves."""
    table = np.stack(scores)
    halves = table[:, ::2].mean(1), table[:, 1::2].mean(1)
    return float((halves[1][halves[0].argmax()] + halves[0][halves[1].argmax()]) / 2)


def elicited_scores(prompts: Prompts, scores: Sequence[np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
    """Share of right samples plainly, by over-prompting and by latent intervention, each the best of the plain prompt and of all
    strengths; and the same of the unrelated moves, averaged over their draws.

    Args:
        scores: 1 for each right sample of each prompt, in the order of `Prompts.all`.
    """
    plain, rest = scores[0], iter(scores[1:])
    over, latent = ([next(rest) for _ in moves] for moves in (prompts.over, prompts.latent))
    values = {
        "naive": float(plain.mean()),
        "over_prompted": best_on_other_half([plain, *over]),
        "latent": best_on_other_half([plain, *latent]),
    }
    drawn = [[best_on_other_half([plain, *(next(rest) for _ in moves)]) for moves in draw] for draw in prompts.nulls]
    null = {"naive": values["naive"]}
    if drawn:
        null |= dict(zip(("over_prompted", "latent"), np.mean(drawn, axis=0).tolist(), strict=True))
    return values, null


def turn_index(path: Float[np.ndarray, "step 2"]) -> int | None:
    """Index of the sharpest turn of a path: the largest angle between two moves times the shorter of them; None if it never moves twice."""
    moves = np.diff(path, axis=0)
    lengths = np.hypot(*moves.T)
    shorter = np.minimum(lengths[1:], lengths[:-1])
    if not (shorter > 0).any():
        return None
    crossed = moves[:-1, 0] * moves[1:, 1] - moves[:-1, 1] * moves[1:, 0]
    angles = np.abs(np.arctan2(crossed, (moves[:-1] * moves[1:]).sum(1)))
    return int((angles * shorter).argmax()) + 1


def turn_and_saturation(
    steps: Sequence[float] | np.ndarray, path: Float[np.ndarray, "step 2"], shown: Float[np.ndarray, " step"]
) -> dict[str, float]:
    """Step at which the path of the outputs turns, and at which the shown combinations are nine tenths as often right as ever."""
    turn = turn_index(path)
    right = np.flatnonzero(shown >= _SATURATED * shown.max())
    return {
        "turn_step": math.nan if turn is None else float(steps[turn]),
        "saturation_step": float(steps[int(right[0])]),
    }


def shares_at_half(path: Float[np.ndarray, "step 2"], half: float = 0.5) -> tuple[float, float]:
    """Both concepts' shares of their targets at the step where the second one has half of its own, or at the last step if it never has."""
    reached = np.flatnonzero(path[:, 1] >= half)
    first, second = path[reached[0] if len(reached) else -1]
    return float(first), float(second)
