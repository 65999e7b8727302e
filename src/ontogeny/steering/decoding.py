"""Token by token decoding with a KV cache: the forward passes of `generate` of transformers, without its own work at each token.

On a small model that work takes a third of the time of a short answer. Families whose class changes a step of the generation, and
embeddings that switch their frequencies with the length, are left to `generate`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, GenerationMixin, LogitsProcessorList

from ontogeny.models.forward import rope_switch
from ontogeny.models.model import Model

_STEPS = (
    "generate",
    "prepare_inputs_for_generation",
    "_prefill",
    "_sample",
    "_update_model_kwargs_for_generation",
    "_prepare_cache_for_generation",
    "_supports_default_dynamic_cache",
)
"""Methods of transformers whose common version `decode` follows."""


Prefill = Callable[[DynamicCache], Float[Tensor, "row vocab"]]
"""Runs the prompts into an empty KV cache and returns the logits after them."""


def takes_argument(model: Model, name: str) -> bool:
    """Whether the forward pass of the family has an argument of this name."""
    return name in _arguments(type(model.network).forward)


@functools.lru_cache(maxsize=64)
def _arguments(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def can_decode(model: Model) -> bool:
    """Whether `decode` makes the forward passes that `generate` would make for this family."""
    family = type(model.network)
    common = all(getattr(family, name, None) is getattr(GenerationMixin, name, None) for name in _STEPS[:-1])
    if not common or getattr(family, "_is_stateful", False) or rope_switch(model) is not None:
        return False
    supported: bool = family._supports_default_dynamic_cache()
    return supported


@torch.no_grad()
def decode(
    model: Model,
    ids: Int[Tensor, "row token"],
    mask: Int[Tensor, "row token"],
    most: int,
    *,
    ends: Sequence[int],
    padding: int,
    processors: LogitsProcessorList,
    prefill: Prefill | None = None,
) -> Int[Tensor, "row new"]:
    """Greedy continuations of processed logits, up to the end token of each row; `padding` stands after it.

    Args:
        model: A model for which `can_decode` holds.
        ids: Prompts, padded on the left.
        mask: 1 for each token of a prompt.
        most: New tokens, at most.
        ends: Tokens that end a row.
        padding: Token after the end of a row.
        processors: Processors of the logits, such as those that sample.
        prefill: In the place of the forward pass of the prompts.
    """
    network = model.network
    positioned = takes_argument(model, "position_ids")
    cache = DynamicCache(config=network.config.get_text_config(decoder=True))
    given: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
    if takes_argument(model, "logits_to_keep"):
        given["logits_to_keep"] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = not bool(mask.all())  # without padding `generate` gives no mask either
    finished = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    ended = torch.tensor(list(ends), dtype=ids.dtype, device=ids.device)
    whole, newest = ids, ids
    for _ in range(most):
        if positioned:
            given["position_ids"] = positions
        if prefill is not None and newest is ids:
            logits = prefill(cache)
        else:
            logits = network(input_ids=newest, attention_mask=mask if padded else None, **given).logits[:, -1]
        scores = processors(whole, logits.to(dtype=torch.float32, copy=True))
        newest = scores.argmax(-1).masked_fill(finished, padding)[:, None]
        whole = torch.cat([whole, newest], 1)
        finished = finished | torch.isin(newest[:, 0], ended)
        if bool(finished.all()):
            break
        mask = torch.cat([mask, torch.ones_like(newest)], 1) if padded else mask
        positions = positions[:, -1:] + 1
    return whole[:, ids.shape[1] :]
