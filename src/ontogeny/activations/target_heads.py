"""Target-attending heads: heads whose attention at a position goes to target tokens, as to the number that a calculation must reach.

Source: arXiv:2504.14379, which calls them previous-token heads: at the token before a verdict they attend to earlier occurrences of the
target. The null is the attention to as many other earlier tokens of the same text, drawn at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.activations.attention_mass import attention_mass
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.statistics.bootstrap import student_t_quantile


@dataclass(frozen=True, eq=False)
class TargetAttention:
    """The attention of every head to the targets, at the position of each text."""

    mass: Float[Tensor, "layer head text"]
    null: Float[Tensor, "layer head text"]
    """To as many other tokens before the position; the mean over the draws."""

    def heads(self, least: float = 0.1, most: int = 50) -> list[tuple[int, int]]:
        """(layer, head) of those with the largest mean mass, above `least` and above the null in a paired 95 % t-interval."""
        mean, excess = self.mass.mean(-1), (self.mass - self.null).double()
        count = excess.shape[-1]
        half = student_t_quantile(float(count - 1), 0.95) * excess.std(-1) / count**0.5
        counted = torch.where((mean > least) & (excess.mean(-1) - half > 0), mean, -torch.inf)
        order = counted.flatten().argsort(descending=True, stable=True)[:most].tolist()
        places = [divmod(cell, mean.shape[1]) for cell in order]
        return [(layer + 1, head) for layer, head in places if counted[layer, head] > -torch.inf]


def target_attention(
    model: Model,
    ids: Sequence[Int[Tensor, " token"]],
    targets: Sequence[Bool[Tensor, " token"]],
    positions: Sequence[int],
    *,
    draws: int = 20,
    seed: int = 0,
    batch: int = 16,
) -> TargetAttention:
    """Attention to the targets at one position of each text, for every head of every layer.

    Args:
        targets: For each text, True at the target's tokens.
        positions: Index of the token whose attention is read in each text; the targets lie before it.
        draws: Sets of other earlier tokens, for the null.

    Raises:
        BadInput: fewer than two texts, a text without a target before its position or without as many other tokens.
    """
    if len(ids) < 2 or not len(ids) == len(targets) == len(positions):
        raise BadInput(
            f"target attention needs at least two texts with a target and a position each, got {len(ids)}, {len(targets)} and "
            f"{len(positions)}: give one of each."
        )
    for row, mask, place in zip(ids, targets, positions, strict=True):
        if not 0 < place < len(row) or not mask[:place].any() or mask[place:].any():
            raise BadInput(
                f"a target must lie before the position in its text of {len(row)} tokens, got {mask.nonzero().flatten().tolist()[:6]} and "
                f"position {place}: mark tokens before it."
            )
        if 2 * int(mask.sum()) > place:
            raise BadInput(
                f"a text must have as many other tokens before its position as target tokens, got {int(mask.sum())} of {place}: give a "
                "longer text."
            )
    masks = [
        [mask, *_other_tokens(mask, place, draws, seed + i)]
        for i, (mask, place) in enumerate(zip(targets, positions, strict=True))
    ]
    cut = [row[: place + 1] for row, place in zip(ids, positions, strict=True)]
    shares = []
    for number in range(draws + 1):
        chosen = [own[number][: len(row)] for own, row in zip(masks, cut, strict=True)]
        read = attention_mass(model, cut, chosen, batch=batch)
        shares.append(torch.stack([part[..., -1] for part in read], -1))
    return TargetAttention(shares[0], torch.stack(shares[1:]).mean(0))


def _other_tokens(mask: Bool[Tensor, " token"], place: int, draws: int, seed: int) -> list[Bool[Tensor, " token"]]:
    """Masks of as many other tokens before the position."""
    generator = torch.Generator().manual_seed(seed)
    others = (~mask[:place]).nonzero().flatten()
    drawn = []
    for _ in range(draws):
        chosen = torch.zeros_like(mask)
        chosen[others[torch.randperm(len(others), generator=generator)[: int(mask.sum())]]] = True
        drawn.append(chosen)
    return drawn
