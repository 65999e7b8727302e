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
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    network = model.body if body else model.network
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        padded = pad_sequence([ids[i] for i in rows], batch_first=True).to(model.device)
        mask = pad_sequence([torch.ones_like(ids[i]) for i in rows], batch_first=True).to(model.device)
        with torch.no_grad(), context(rows):
            output = network(input_ids=padded, attention_mask=mask, use_cache=False)
        yield rows, output
