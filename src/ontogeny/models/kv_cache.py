"""KV cache: a copy that may grow apart from the original."""

import copy
from typing import Any

from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_GROWN_BY_NEW_TENSORS = {DynamicLayer, DynamicSlidingWindowLayer}
"""Layers that never write into the tensors which they hold."""


def copy_cache(cache: Any) -> Any:
    """A copy of a KV cache of transformers, or None; keys and values are shared as long as neither of the two grows."""
    layers = getattr(cache, "layers", None)
    if layers is None or any(type(layer) not in _GROWN_BY_NEW_TENSORS for layer in layers):
        return copy.deepcopy(cache)
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in layers]
    return copied
