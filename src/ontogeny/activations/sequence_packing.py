"""Texts of all lengths laid end to end in one row: a pass then holds as many as its budget allows, and no token is filling.

Only attention looks from token to token, so it alone must know where a text begins: it is asked for texts of one length at a time,
by transformers' own function. All else runs over the whole row. A family whose attention cannot be reached so is told by its numbers.
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

_ATTENTION_NAME = "ontogeny_end_to_end"
_PACKING_TOLERANCE = 1e-5
"""Largest difference to texts that run alone, relative to the largest entry; float32 sums in another order differ by 1e-6."""


@dataclass(frozen=True)
class LengthGroup:
    """Texts of one length that follow each other in a row."""

    start: int
    texts: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.texts * self.length


_LENGTH_GROUPS: ContextVar[tuple[LengthGroup, ...]] = ContextVar("laid")
_KINDS: dict[tuple[type, str], bool] = {}
"""What was found of each family and shape."""


def offsets(lengths: Sequence[int]) -> tuple[LengthGroup, ...]:
    """Where texts of these lengths lie in their row."""
    found, start = [], 0
    for length, same in itertools.groupby(lengths):
        found.append(LengthGroup(start, len(list(same)), length))
        start = found[-1].end
    return tuple(found)


def segments(alike: Sequence[LengthGroup], members: Sequence[int]) -> list[Sequence[int]]:
    """The texts of a row, cut where the length changes."""
    ends = list(itertools.accumulate(one.texts for one in alike))
    return [members[end - one.texts : end] for one, end in zip(alike, ends, strict=True)]


def position_ids(alike: Sequence[LengthGroup]) -> Int[Tensor, "1 token"]:
    """Each text counts its own tokens."""
    return torch.cat([torch.arange(one.length).repeat(one.texts) for one in alike])[None]


@contextlib.contextmanager
def pack_sequences(model: Model, alike: tuple[LengthGroup, ...]) -> Iterator[None]:
    """While open, a pass over one row keeps its texts apart."""
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, _attention)
    config = model.network.config.get_text_config()
    before, token = config._attn_implementation, _LENGTH_GROUPS.set(alike)
    config._attn_implementation = _ATTENTION_NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _LENGTH_GROUPS.reset(token)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Float[Tensor, "1 token head d"], None]:
    whole = ALL_ATTENTION_FUNCTIONS["sdpa"]
    found = []
    for alike in _LENGTH_GROUPS.get():
        own = [
            part[0, :, alike.start : alike.end].unflatten(1, (alike.texts, -1)).transpose(0, 1)
            for part in (query, key, value)
        ]
        found.append(whole(module, *own, None, **more)[0].flatten(0, 1))
    return torch.cat(found)[None], None


def can_pack(model: Model, longest: int) -> bool:
    """Whether texts of at most this length can share a row of this model; asked of the model itself once a family and shape."""
    config = model.network.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if (
        model.device.type != "cpu"  # elsewhere many small calls cost more than a little filling
        or model.network.dtype != torch.float32
        or not model.architecture.causal
        or model.architecture.guessed
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
    """Whether three texts in one row are read as they are alone: heads before their output map show most of what is amiss."""
    vocabulary = model.network.get_input_embeddings().weight.shape[0]
    texts = [torch.arange(n)[None] * 7 % vocabulary for n in (3, 4, 4)]
    texts[2] = texts[2].flip(1)
    alike = offsets([text.shape[1] for text in texts])
    wanted = [("head", layer) for layer in range(1, model.layers + 1)] + [("norm", 0)]
    alone = [_head_outputs(model, wanted, text) for text in texts]
    try:
        with pack_sequences(model, alike):
            row = _head_outputs(model, wanted, torch.cat(texts, 1), position_ids=position_ids(alike))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # a family that builds its own masks, say
        return False
    pairs = [(torch.cat(apart, 1), together) for *apart, together in zip(*alone, row, strict=True)]
    return all(bool((a - b).abs().max() <= _PACKING_TOLERANCE * a.abs().max()) for a, b in pairs)


def _head_outputs(
    model: Model, wanted: Sequence[tuple[str, int]], ids: Tensor, **more: Any
) -> list[Float[Tensor, "1 token d"]]:
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, layer: int, value: Tensor) -> None:
        seen[part, layer] = value.clone()

    with read_hooks(model, wanted, keep):
        model.body(input_ids=ids, use_cache=False, **more)
    return [seen[one] for one in wanted]
