"""Directions in tokens: which next tokens a direction promotes and suppresses, and whether the unembedding can tell them apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.lenses.lens import Lens, check_lens_model, logit_lens
from ontogeny.metrics.geometry import effective_rank, variance_share
from ontogeny.models.model import Model
from ontogeny.neurons.entropy_neurons import final_norm
from ontogeny.statistics.unique import unique_values

DEGENERATE_SHARE = 0.9
"""Share of the variance of unembedding rows in one dimension from which a read-out is degenerate."""


@dataclass(frozen=True)
class UnembeddingRank:
    """Spread of the unembedding rows of some tokens."""

    effective_rank: float
    first_share: float
    """Share of their variance in the first principal component."""
    tokens: int

    @property
    def is_degenerate(self) -> bool:
        """Whether nearly all differences between the tokens lie along one direction: any direction then reads as the same tokens."""
        return self.first_share >= DEGENERATE_SHARE


@dataclass(frozen=True)
class TokenReadout:
    """Tokens that a direction promotes and suppresses, with the change of their logits for one unit of it."""

    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    rank: UnembeddingRank
    """Of the tokens that are listed."""

    @property
    def note(self) -> str:
        """A warning where the read-out is degenerate, else ""."""
        if not self.rank.is_degenerate:
            return ""
        return (
            f"degenerate: {self.rank.first_share:.0%} of the variance of the rows of these {self.rank.tokens} tokens lies in one "
            "dimension, so that any direction reads as them"
        )


def read_in_tokens(
    model: Model,
    direction: Float[Tensor, " d"],
    *,
    layer: int | None = None,
    lens: Lens | None = None,
    top: int = 10,
    tokens: Sequence[int] | None = None,
) -> TokenReadout:
    """The tokens that a direction of the residual stream promotes most, and those that it suppresses most.

    The direction passes the lens' map (without its shift), the gain of the final norm and the unembedding. The norm's division by the
    length of the state only scales it, and is left out.

    Args:
        direction: In the coordinates of `resid.layer`, such as a probe's, or an output row of a GLU neuron.
        layer: Layer of the direction, which a fitted lens needs.
        top: Number of tokens of each kind.
        tokens: Ids to choose from; by default the vocabulary.

    Raises:
        BadInput: the direction has another width, is zero or not finite, or a fitted lens has no layer.
    """
    check_lens_model(model)
    lens = lens or logit_lens()
    if tuple(direction.shape) != (model.d,) or not bool(direction.isfinite().all()) or not bool(direction.any()):
        raise BadInput(
            f"`direction` must be {model.d} finite numbers, not all 0, got the shape {tuple(direction.shape)}."
        )
    if lens.maps is not None:
        if layer is None or not 0 <= layer <= model.layers:
            raise BadInput(f"`layer` must lie between 0 and {model.layers} for a {lens.kind} lens, got {layer}.")
        direction = direction.to(lens.maps) @ lens.maps[layer]
    # Rows beyond the tokenizer's are padding, which no token has.
    vocabulary = min(len(_rows(model)), len(model.tokenizer))
    ids = torch.arange(vocabulary) if tokens is None else torch.tensor(list(tokens))
    rows = _rows(model)[ids.to(model.device)]
    scores = (rows @ _through_norm(model, direction.to(rows))).cpu()
    top = min(top, len(ids))
    high, low = scores.topk(top).indices, (-scores).topk(top).indices
    listed = unique_values(torch.cat([high, low]))
    named = model.tokenizer.convert_ids_to_tokens
    promoted, suppressed = (
        tuple((str(named(int(ids[i]))), float(scores[i])) for i in chosen) for chosen in (high, low)
    )
    return TokenReadout(promoted, suppressed, unembedding_rank(model, ids[listed].tolist()))


def unembedding_rank(model: Model, tokens: Sequence[int]) -> UnembeddingRank:
    """Effective rank of the unembedding rows of some tokens, about their mean; below some size a model's rows are nearly of rank one.

    Raises:
        BadInput: fewer than two tokens.
    """
    if len(tokens) < 2:
        raise BadInput(f"`tokens` must name at least two tokens, got {len(tokens)}: give more.")
    rows = _through_norm(model, _rows(model)[torch.tensor(list(tokens), device=model.device)].float())
    rank, share = effective_rank(rows[None]), variance_share(rows[None], k=1)
    return UnembeddingRank(float(rank[0]), float(share[0, 0]), len(tokens))


def _rows(model: Model) -> Float[Tensor, "v d"]:
    weight: Tensor = model.network.get_output_embeddings().weight.detach()
    return weight


@torch.no_grad()
def _through_norm(model: Model, x: Float[Tensor, "*row d"]) -> Float[Tensor, "*row d"]:
    """The linear part of the final norm: the gain of each dimension, about the mean where the norm centres."""
    return final_norm(model).straight(x).to(x) if model.architecture.final_norm else x
