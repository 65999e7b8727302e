"""States of the residual stream of all layers at all tokens of some texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.lenses.lens import check_lens_model
from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model

_FEWEST_TOKENS = 2


@dataclass(frozen=True, eq=False)
class TextStreams:
    """Residual stream of texts, without the first token of each, which attends to itself alone."""

    states: Float[Tensor, "layer token d"]
    """Of the layers 0 to L, before the final norm."""
    text: Int[Tensor, " token"]
    """Which of the readable texts each token is in."""
    following: Int[Tensor, " token"]
    """Id of the next token of the text; -1 at its end."""

    def of_texts(self, texts: Sequence[int]) -> "TextStreams":
        """The tokens of some texts."""
        inside = torch.isin(self.text, torch.tensor(list(texts), device=self.text.device))
        return TextStreams(self.states[:, inside], self.text[inside], self.following[inside])

    def thinned(self, most: int) -> "TextStreams":
        """At most so many tokens, evenly spaced."""
        count = len(self.text)
        kept = torch.arange(count) if count <= most else torch.linspace(0, count - 1, most).round().long()
        return TextStreams(self.states[:, kept], self.text[kept], self.following[kept])


def readable_texts(model: Model, texts: Sequence[str], *, most_tokens: int) -> list[str]:
    """The texts of at least two tokens: `TextStreams.text` numbers these."""
    cut = min(most_tokens, model.context)
    return [text for text in texts if len(model.tokenizer(text).input_ids[:cut]) >= _FEWEST_TOKENS]


def text_ids(model: Model, texts: Sequence[str], *, most_tokens: int) -> list[list[int]]:
    """Token ids of the readable texts, cut to their first `most_tokens`.

    Raises:
        BadInput: fewer than two texts have two tokens.
    """
    cut = min(most_tokens, model.context)
    ids = [list(model.tokenizer(text).input_ids)[:cut] for text in texts]
    kept = [row for row in ids if len(row) >= _FEWEST_TOKENS]
    if len(kept) < 2:
        raise BadInput(
            f"a lens needs at least two texts of two tokens, got {len(kept)} of {len(texts)}: give more texts."
        )
    return kept


@torch.inference_mode()
def read_streams(model: Model, texts: Sequence[str], *, most_tokens: int = 64) -> TextStreams:
    """Read the stream of all layers at each token but the first of each text.

    Args:
        most_tokens: Tokens of a text that are read, from its beginning.

    Raises:
        BadInput: the model is not causal, or fewer than two texts have two tokens.
    """
    check_lens_model(model)
    states, owner, following = [], [], []
    for number, ids in enumerate(text_ids(model, texts, most_tokens=most_tokens)):
        layers = list(forward_streams(model, ids))
        states.append(torch.stack([value[0, 1:].float() for value in layers]))
        owner.append(torch.full((len(ids) - 1,), number, device=model.device))
        following.append(torch.tensor([*ids[2:], -1], device=model.device))
    # A clone leaves inference mode, so that a lens can be fitted on it.
    return TextStreams(torch.cat(states, 1), torch.cat(owner), torch.cat(following))


def forward_streams(model: Model, ids: Sequence[int]) -> list[Float[Tensor, "1 token d"]]:
    """The stream of all layers for one sequence, as the forward pass makes it."""
    found: dict[int, Tensor] = {}

    def keep(_: str, layer: int, value: Tensor) -> None:
        found[layer] = value if torch.is_grad_enabled() else value.clone()

    wanted = [("resid", layer) for layer in range(model.layers + 1)]
    with read_hooks(model, wanted, keep):
        model.body(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    return [found[layer] for layer in range(model.layers + 1)]
