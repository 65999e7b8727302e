"""Static KV cache: a forward pass over the tokens from `at` on overwrites its own slots, and earlier slots are never copied.

Passes that go from the last token to the first can share one cache, since no later pass reads the slots that an earlier one overwrote.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ontogeny.models.model import Model


class LayerCache(DynamicLayer):
    """Keys and values of one layer, of which the first `at` are valid."""

    def __init__(self, at: int = 0, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        self.at, self.keys, self.values = at, keys, values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys = _write(self.keys, key_states, self.at)
        self.values = _write(self.values, value_states, self.at)
        end = self.at + key_states.shape[-2]
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.at

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.at + query_length, 0


def _write(
    cached: Float[Tensor, "#row head key d_head"] | None, new: Float[Tensor, "row head query d_head"], at: int
) -> Float[Tensor, "row head key2 d_head"]:
    end = at + new.shape[-2]
    if cached is None or cached.shape[0] != len(new) or cached.shape[-2] < end:
        room = new.new_empty(len(new), new.shape[1], end, new.shape[-1])
        if cached is not None and at:
            room[:, :, :at] = cached[:, :, :at]
        cached = room
    cached[:, :, at:end] = new
    return cached


def empty_cache(layers: int) -> Cache:
    return Cache(layers=[LayerCache() for _ in range(layers)])


def view_from(cache: Cache, at: int, rows: slice | Int[Tensor, " row"] | None = None) -> Cache:
    """A view of the cache with its first `at` tokens valid; a slice of rows shares the memory, row indices copy it."""
    layers: Sequence[Any] = cache.layers
    if rows is None:
        return Cache(layers=[LayerCache(at, one.keys, one.values) for one in layers])
    return Cache(
        layers=[LayerCache(at, _select_rows(one.keys, rows), _select_rows(one.values, rows)) for one in layers]
    )


def clone_cache(cache: Cache) -> Cache:
    layers: Sequence[Any] = cache.layers
    return Cache(layers=[LayerCache(one.at, _clone(one.keys), _clone(one.values)) for one in layers])


def _select_rows(cached: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    return None if cached is None else cached[rows]


def _clone(cached: Tensor | None) -> Tensor | None:
    return None if cached is None else cached.clone()


@contextlib.contextmanager
def skip_blocks(model: Model, upto: int, tuples: bool) -> Iterator[None]:
    """Context manager: blocks 1 to `upto` return their input; `tuples` if the family's blocks return tuples."""

    def on(*args: Any, **kwargs: Any) -> Any:
        value = args[0] if args else kwargs["hidden_states"]
        return (value, None) if tuples else value

    skipped: list[tuple[nn.Module, Any]] = []
    try:
        for layer in range(1, upto + 1):
            block = model.block(layer)
            skipped.append((block, block.__dict__.get("forward")))
            block.forward = on
        yield
    finally:
        for block, own in skipped:
            del block.forward
            if own is not None:
                block.forward = own


def blocks_return_tuples(model: Model) -> bool:
    """Whether the blocks of this family return their stream inside a tuple."""
    returned: list[bool] = []
    handle = model.block(1).register_forward_hook(lambda _, __, output: returned.append(isinstance(output, tuple)))
    try:
        with torch.no_grad():
            model.body(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        handle.remove()
    return returned[0]
