"""Hidden states of a fixed set of tokens at every layer: in texts, or, without texts, of each token alone behind the first token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.embeddings.tokens import ComparedTokens
from ontogeny.models.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTEXT = 64
"""Tokens of a text that are read."""


@dataclass(frozen=True, eq=False)
class TokenPlaces:
    """Where each of some tokens is read: once, in a sequence of ids."""

    sequences: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, int], ...]
    """Sequence and position."""
    tokens: Int[Tensor, " place"]
    """Index of each among the compared tokens."""


def token_places(
    tokenizer: "PreTrainedTokenizerBase", tokens: ComparedTokens, texts: Sequence[str], *, most: int
) -> TokenPlaces:
    """One place of each token: its first in the texts that is not the first of its text; without texts, alone."""
    wanted = {number: index for index, number in enumerate(tokens.ids.tolist())}
    sequences: list[tuple[int, ...]] = []
    places: list[tuple[int, int]] = []
    chosen: list[int] = []
    if not texts:
        first = tokenizer.bos_token_id
        start = () if first is None else (first,)
        for number, index in list(wanted.items())[:most]:
            places.append((len(sequences), len(start)))
            sequences.append((*start, number))
            chosen.append(index)
        return TokenPlaces(tuple(sequences), tuple(places), torch.tensor(chosen, dtype=torch.long))
    for text in texts:
        if len(chosen) >= most:
            break
        ids = list(tokenizer(text, verbose=False)["input_ids"])[:_CONTEXT]
        here = list[tuple[int, int]]()
        for position, number in enumerate(ids[1:], 1):
            if number in wanted and len(chosen) + len(here) < most:
                here.append((position, wanted.pop(number)))
        if here:
            places += [(len(sequences), position) for position, _ in here]
            chosen += [index for _, index in here]
            sequences.append(tuple(ids[: here[-1][0] + 1]))
    return TokenPlaces(tuple(sequences), tuple(places), torch.tensor(chosen, dtype=torch.long))


def hidden_states(model: Model, places: TokenPlaces) -> Float[Tensor, "layer place d"]:
    """The residual stream of every layer at each place, float32 on the CPU."""
    reads = []
    for sequence, position in places.places:
        weights = torch.zeros(len(places.sequences[sequence]))
        weights[position] = 1.0
        reads.append(ActivationRead(sequence, weights))
    captured = capture_workload(model, Workload(places.sequences, tuple(reads)), model.sites("resid"))
    return captured.parts["resid"].float().cpu()
