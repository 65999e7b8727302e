"""Forward passes over token sequences of different lengths: sorted by length, padded on the right, a batch at a time.

No token of a causal model sees the padding to its right.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ontogeny.models.model import Model


def rope_switch(model: Model) -> int | None:
    """Length above which the model turns its positions by other frequencies (longrope, dynamic RoPE); None if it never does.

    The longest text of a pass decides for all of them, padding included, so that texts on the two sides must not share a pass.
    """
    config = model.network.config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    for part in (parameters, *(value for value in parameters.values() if isinstance(value, dict))):
        if part.get("rope_type") == "longrope":
            known = part.get("original_max_position_embeddings")
            return known or getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
        if "dynamic" in str(part.get("rope_type")):
            return int(config.max_position_embeddings)
    return None


def split_at_switch(rows: Sequence[int], lengths: Sequence[int], switch: int | None) -> list[list[int]]:
    """The rows in order, in two groups where some are above the switch and some are not."""
    sides = (
        [r for r in rows if switch is None or lengths[r] <= switch],
        [r for r in rows if switch and lengths[r] > switch],
    )
    return [side for side in sides if side]


def batches_by_length(model: Model, lengths: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Indices of sequences of similar length, at most `batch` at a time, none of them across the switch of a rotary embedding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for side in split_at_switch(order, lengths, rope_switch(model)):
        yield from (side[start : start + batch] for start in range(0, len(side), batch))


def forward_padded(
    model: Model,
    ids: Sequence[Int[Tensor, " token"]],
    *,
    batch: int,
    body: bool = False,
    context: Callable[[list[int]], AbstractContextManager[Any]] = lambda _: contextlib.nullcontext(),
) -> Iterator[tuple[list[int], Any]]:
    """Yield the indices of each batch's sequences and the model's output, `[row, token, …]`, without gradients.

    Args:
        ids: one sequence of token ids each.
        batch: sequences per forward pass.
        body: run the decoder without its `lm_head`.
        context: opened around the forward pass over the given indices, such as one that installs hooks.
    """
    network = model.body if body else model.network
    for rows in batches_by_length(model, [len(row) for row in ids], batch):
        padded = pad_sequence([ids[i] for i in rows], batch_first=True).to(model.device)
        mask = pad_sequence([torch.ones_like(ids[i]) for i in rows], batch_first=True).to(model.device)
        with torch.no_grad(), context(rows):
            output = network(input_ids=padded, attention_mask=mask, use_cache=False)
        yield rows, output
