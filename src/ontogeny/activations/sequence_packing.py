"""Sequence packing: concatenate texts of all lengths into one row, so that no compute is spent on padding.

Only attention mixes tokens, so it runs separately for each group of texts of one length, with transformers' own function; everything
else runs over the whole row. Families that do not support this are detected by comparing packed with unpacked outputs.
"""

import contextlib
import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ontogeny.models.hooks import read_hooks
from ontogeny.models.model import Model

_ATTENTION_NAME = "ontogeny_packed"
_PACKING_TOLERANCE = 1e-5
"""Maximum difference from texts that run alone, relative to the largest entry; float32 sums in another order differ by 1e-6."""


@dataclass(frozen=True)
class LengthGroup:
    """Consecutive texts of one length in a row."""

    start: int
    texts: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.texts * self.length


_LENGTH_GROUPS: ContextVar[tuple[LengthGroup, ...]] = ContextVar("length_groups")
_KINDS: dict[tuple[type, str], bool] = {}
"""Cached result for each family and shape."""


def offsets(lengths: Sequence[int]) -> tuple[LengthGroup, ...]:
    """Length groups of texts of these lengths, in order."""
    groups, start = [], 0
    for length, same in itertools.groupby(lengths):
        groups.append(LengthGroup(start, len(list(same)), length))
        start = groups[-1].end
    return tuple(groups)


def segments(groups: Sequence[LengthGroup], members: Sequence[int]) -> list[Sequence[int]]:
    """The members of each length group."""
    ends = itertools.accumulate(group.texts for group in groups)
    return [members[end - group.texts : end] for group, end in zip(groups, ends, strict=True)]


def position_ids(groups: Sequence[LengthGroup]) -> Int[Tensor, "1 token"]:
    """Position of each token in its own text."""
    return torch.cat([torch.arange(group.length).repeat(group.texts) for group in groups])[None]


@contextlib.contextmanager
def pack_sequences(model: Model, groups: tuple[LengthGroup, ...]) -> Iterator[None]:
    """Restrict attention to the text of each token in passes over one packed row."""
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, _attention)
    config = model.network.config.get_text_config()
    before, token = config._attn_implementation, _LENGTH_GROUPS.set(groups)
    config._attn_implementation = _ATTENTION_NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _LENGTH_GROUPS.reset(token)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Float[Tensor, "1 token head d"], None]:
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]
    outputs = []
    for group in _LENGTH_GROUPS.get():
        own = [
            part[0, :, group.start : group.end].unflatten(1, (group.texts, -1)).transpose(0, 1)
            for part in (query, key, value)
        ]
        outputs.append(attend(module, *own, None, **more)[0].flatten(0, 1))
    return torch.cat(outputs)[None], None


def can_pack(model: Model, longest: int) -> bool:
    """Whether texts up to this length can be packed for this model; tested on the model, once for each family and shape."""
    config = model.network.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if (
        model.device.type != "cpu"  # elsewhere many small calls cost more than a little padding
        or model.network.dtype != torch.float32
        or not model.architecture.causal
        or model.architecture.is_inferred
        or config._attn_implementation != "sdpa"
        or "position_ids" not in inspect.signature(model.body.forward).parameters
        or (window and longest > window)
    ):
        return False
    kind = type(model.body), config.to_json_string()
    if kind not in _KINDS:
        _KINDS[kind] = _packing_is_exact(model)
    return _KINDS[kind]


def _packing_is_exact(model: Model) -> bool:
    """Whether three packed texts give the same head outputs and final norm as each text alone."""
    vocabulary = model.network.get_input_embeddings().weight.shape[0]
    texts = [torch.arange(n)[None] * 7 % vocabulary for n in (3, 4, 4)]
    texts[2] = texts[2].flip(1)
    groups = offsets([text.shape[1] for text in texts])
    wanted = [("head", layer) for layer in range(1, model.layers + 1)] + [("norm", 0)]
    alone = [_head_outputs(model, wanted, text) for text in texts]
    try:
        with pack_sequences(model, groups):
            row = _head_outputs(model, wanted, torch.cat(texts, 1), position_ids=position_ids(groups))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # e.g. a family with its own masks
        return False
    pairs = [(torch.cat(unpacked, 1), packed) for *unpacked, packed in zip(*alone, row, strict=True)]
    return all(bool((a - b).abs().max() <= _PACKING_TOLERANCE * a.abs().max()) for a, b in pairs)


def _head_outputs(
    model: Model, wanted: Sequence[tuple[str, int]], ids: Tensor, **more: Any
) -> list[Float[Tensor, "1 token d"]]:
    values: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, layer: int, value: Tensor) -> None:
        values[part, layer] = value.clone()

    with read_hooks(model, wanted, keep):
        model.body(input_ids=ids, use_cache=False, **more)
    return [values[key] for key in wanted]
