"""Agreement of a lens with the model's own output, token by token, with intervals over texts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.lenses.lens import Lens, lens_logits
from ontogeny.lenses.streams import TextStreams
from ontogeny.models.model import Model

_TOKENS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class LensScores:
    """Scores of a lens at each layer and token."""

    agrees: Float[Tensor, "layer token"]
    """1 where the likeliest token is the model's."""
    divergence: Float[Tensor, "layer token"]
    """KL(model's output ‖ lens), nats."""
    surprise: Float[Tensor, "layer token"]
    """Negative log-likelihood of the next token of the text, nats; NaN at the end of a text."""


@torch.no_grad()
def score_lens(model: Model, streams: TextStreams, lens: Lens) -> LensScores:
    """Scores of a lens on texts that it was not fitted on."""
    shape = streams.states.shape[:2]
    agrees, divergence, surprise = (torch.empty(shape) for _ in range(3))
    for rows in torch.arange(shape[1]).split(_TOKENS_AT_ONCE):  # type: ignore[no-untyped-call]
        truth = _log_shares(model, streams.states[-1, rows], model.layers, None)
        following = streams.following[rows]
        for layer in range(shape[0]):
            seen = _log_shares(model, streams.states[layer, rows], layer, lens)
            agrees[layer, rows] = (seen.argmax(-1) == truth.argmax(-1)).float().cpu()
            divergence[layer, rows] = (truth.exp() * (truth - seen)).sum(-1).clamp(min=0).cpu()
            said = -seen.gather(-1, following.clamp(min=0)[:, None])[:, 0]
            surprise[layer, rows] = said.where(following >= 0, torch.nan).cpu()
    return LensScores(agrees, divergence, surprise)


def _log_shares(model: Model, states: Tensor, layer: int, lens: Lens | None) -> Tensor:
    logits = lens_logits(model, states.to(model.network.dtype), layer, lens)
    return logits.float().log_softmax(-1)
