"""What the first block's maps make of a word is computed once a word, not once a token: before attention a token is its embedding.

In the texts of a concept a tenth to a fifth of the tokens are distinct. Which maps see nothing but the word is told by the model: their
inputs are equal, bit by bit, wherever it stands. Those of queries, keys and values do where positions are rotary, and the MLP of a parallel
block does.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ontogeny.models.hooks import replace_forward
from ontogeny.models.model import Model

MAX_MEMO_BYTES = 2**27
"""Bytes of outputs that are kept; the words that come most often go first."""
MIN_REPEATED_SHARE = 0.35
"""Share of tokens that must be repeats: keeping and fetching is not free (at .31 nothing was gained)."""
_KINDS: dict[tuple[type, str], tuple[str, ...]] = {}
"""What was found of each family and shape."""


@dataclass(frozen=True)
class TokenMemo:
    """The words of a workload that come again, and what each map made of them so far."""

    maps: Mapping[str, nn.Module]
    slots: Int[Tensor, " vocab"]
    """Place of each word, -1 for one that is not kept."""
    kept: Mapping[str, Float[Tensor, "slot o"]]
    filled: Bool[Tensor, " slot"]


def memoise_first_block(model: Model, sequences: Sequence[Sequence[int]], *, inside_mlp: bool) -> TokenMemo | None:
    """Room for the words that come again, where that saves anything; `inside_mlp`: something is read inside the MLPs, so they run."""
    if model.device.type != "cpu" or not sequences or _has_hooks(model):
        return None
    mlp = model.architecture.mlp
    paths = [path for path in _paths(model) if not (inside_mlp and path == mlp)]
    vocabulary = model.network.get_input_embeddings().weight.shape[0]
    counts = torch.bincount(torch.tensor([token for ids in sequences for token in ids]), minlength=vocabulary)
    repeats = int((counts - 1).clamp(min=0).sum())
    if not paths or repeats < MIN_REPEATED_SHARE * int(counts.sum()):
        return None
    maps = {path: model.part(1, path) for path in paths}
    widths = {path: _width(model, module) for path, module in maps.items()}
    size = torch.finfo(model.network.dtype).bits // 8
    room = min(MAX_MEMO_BYTES // (size * sum(widths.values())), int((counts > 1).sum()))
    order = counts.argsort(descending=True, stable=True)[:room]
    slots = torch.full((len(counts),), -1)
    slots[order] = torch.arange(room)
    kept = {path: torch.empty(room, width, dtype=model.network.dtype) for path, width in widths.items()}
    return TokenMemo(maps, slots, kept, torch.zeros(room, dtype=torch.bool))


@contextlib.contextmanager
def use_token_memo(words: TokenMemo | None, ids: Int[Tensor, "row token"]) -> Iterator[int]:
    """While open, a pass over these tokens computes the maps of `words` for words that are new, and fetches the others; how many."""
    if words is None:
        yield ids.numel()
        return
    slot = words.slots[ids.flatten()]
    new = (slot >= 0) & ~words.filled[slot.clamp(min=0)]
    first = torch.full_like(words.slots[: len(words.filled)], len(slot))
    first.scatter_reduce_(0, slot[new], new.nonzero()[:, 0], "amin")
    first = first[first < len(slot)]
    computed = torch.cat([(slot < 0).nonzero()[:, 0], first])
    if len(computed) == 1:  # products of one row end in other last digits than those of several
        computed = computed.repeat(2)
    called: set[str] = set()
    with contextlib.ExitStack() as exchanged:
        for path, module in words.maps.items():
            own = partial(_forward_with_memo, module.forward, words.kept[path], slot, computed, first, called, path)
            exchanged.enter_context(replace_forward(module, own))
        yield len(computed)
    if len(called) == len(words.maps):
        words.filled[slot[first]] = True


def _forward_with_memo(
    whole: Callable[[Tensor], Tensor],
    kept: Tensor,
    slot: Tensor,
    computed: Tensor,
    first: Tensor,
    called: set[str],
    path: str,
    x: Float[Tensor, "row token i"],
) -> Float[Tensor, "row token o"]:
    called.add(path)
    flat = x.flatten(0, 1)
    made = kept.new_empty(0, kept.shape[1])
    if len(computed):
        made = whole(flat[computed])
        kept[slot[first]] = made[len(computed) - len(first) :]
    found = kept[slot.clamp(min=0)]
    found[computed] = made
    return found.unflatten(0, x.shape[:2])


def _has_hooks(model: Model) -> bool:
    """Whether something is hooked where the first block reads: what it does to one token need not be what it does to another."""
    places = [model.network.get_submodule(model.architecture.embed), *model.block(1).modules()]
    hooks = [hook for place in places for hook in (*place._forward_hooks.values(), *place._forward_pre_hooks.values())]
    # Once asked for hidden states, transformers leaves hooks of its own behind, which only look.
    return any(not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks)


def _width(model: Model, module: nn.Module) -> int:
    if isinstance(module, nn.Linear | Conv1D):
        return int(module.out_features if isinstance(module, nn.Linear) else module.nf)
    return model.d


def _paths(model: Model) -> tuple[str, ...]:
    kind = type(model.body), model.network.config.to_json_string()
    if kind not in _KINDS:
        _KINDS[kind] = _memoisable_maps(model)
    return _KINDS[kind]


@torch.inference_mode()
def _memoisable_maps(model: Model) -> tuple[str, ...]:
    """Maps of the first block, the MLP as one, whose input is the same wherever a word stands and whatever stands around it."""
    table, block = model.architecture, model.block(1)
    if table.guessed or table.flat_mlp or not table.causal:
        return ()
    linear = [path for path, module in block.named_modules() if type(module) in (nn.Linear, Conv1D)]
    apart = [path for path in linear if not path.startswith(f"{table.mlp}.") and path != table.heads_out]
    candidates = [table.mlp, *apart]
    seen: dict[str, list[Tensor]] = {path: [] for path in candidates}
    texts = [[3, 5, 7, 11, 7], [7, 3, 3, 5, 11]]
    with contextlib.ExitStack() as hooks:
        for path in candidates:
            note = partial(_record_inputs, seen[path])
            hooks.callback(block.get_submodule(path).register_forward_pre_hook(note).remove)
        try:
            for text in texts:
                model.body(input_ids=torch.tensor([text]), use_cache=False)
            return tuple(path for path in candidates if _depends_only_on_token(seen[path], texts))
        except (AttributeError, RuntimeError, TypeError):  # a family that wants to be called otherwise
            return ()


def _record_inputs(seen: list[Tensor], _: nn.Module, args: tuple[Tensor, ...]) -> None:
    seen.append(args[0][0].clone() if args else torch.empty(0))


def _depends_only_on_token(seen: Sequence[Tensor], texts: Sequence[Sequence[int]]) -> bool:
    rows: dict[int, Tensor] = {}
    for values, text in zip(seen, texts, strict=False):
        if len(values) != len(text):
            return False
        for token, row in zip(text, values, strict=True):
            if not torch.equal(rows.setdefault(token, row), row):
                return False
    return len(seen) == len(texts)
