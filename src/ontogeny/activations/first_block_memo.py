"""Memoise the first block's projections by token id: before attention, a token's input is its embedding.

Only a tenth to a fifth of the tokens of a concept are distinct. A projection qualifies if its inputs for one token id are equal bit
for bit at every position: queries, keys and values with rotary positions, and the MLP of a parallel block.
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
"""Maximum size of the stored outputs; the most frequent tokens are stored first."""
MIN_REPEATED_SHARE = 0.35
"""Minimum share of repeated tokens, since the memo has a cost (no gain at .31)."""
_KINDS: dict[tuple[type, str], tuple[str, ...]] = {}
"""Cached result for each family and shape."""


@dataclass(frozen=True)
class TokenMemo:
    """Outputs of each projection for the repeated tokens of a workload, filled as they are computed."""

    maps: Mapping[str, nn.Module]
    slot_of_token: Int[Tensor, " vocab"]
    """Slot of each token id; -1 if it is not stored."""
    outputs: Mapping[str, Float[Tensor, "slot o"]]
    is_filled: Bool[Tensor, " slot"]


def memoise_first_block(model: Model, sequences: Sequence[Sequence[int]], *, inside_mlp: bool) -> TokenMemo | None:
    """An empty memo for the repeated tokens, or None if it would not pay off; with `inside_mlp` the MLP is not memoised."""
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
    slots = min(MAX_MEMO_BYTES // (size * sum(widths.values())), int((counts > 1).sum()))
    order = counts.argsort(descending=True, stable=True)[:slots]
    slot_of_token = torch.full((len(counts),), -1)
    slot_of_token[order] = torch.arange(slots)
    outputs = {path: torch.empty(slots, width, dtype=model.network.dtype) for path, width in widths.items()}
    return TokenMemo(maps, slot_of_token, outputs, torch.zeros(slots, dtype=torch.bool))


@contextlib.contextmanager
def use_token_memo(memo: TokenMemo | None, ids: Int[Tensor, "row token"]) -> Iterator[int]:
    """For a pass over these tokens, compute the projections of new tokens only; yields the number of computed tokens."""
    if memo is None:
        yield ids.numel()
        return
    slot = memo.slot_of_token[ids.flatten()]
    new = (slot >= 0) & ~memo.is_filled[slot.clamp(min=0)]
    first = torch.full_like(memo.slot_of_token[: len(memo.is_filled)], len(slot))
    first.scatter_reduce_(0, slot[new], new.nonzero()[:, 0], "amin")
    first = first[first < len(slot)]
    computed = torch.cat([(slot < 0).nonzero()[:, 0], first])
    if len(computed) == 1:  # a product of one row differs in the last digits from one of several
        computed = computed.repeat(2)
    called: set[str] = set()
    with contextlib.ExitStack() as replaced:
        for path, module in memo.maps.items():
            own = partial(_forward_with_memo, module.forward, memo.outputs[path], slot, computed, first, called, path)
            replaced.enter_context(replace_forward(module, own))
        yield len(computed)
    if len(called) == len(memo.maps):
        memo.is_filled[slot[first]] = True


def _forward_with_memo(
    forward: Callable[[Tensor], Tensor],
    stored: Tensor,
    slot: Tensor,
    computed: Tensor,
    first: Tensor,
    called: set[str],
    path: str,
    x: Float[Tensor, "row token i"],
) -> Float[Tensor, "row token o"]:
    called.add(path)
    flat = x.flatten(0, 1)
    new = stored.new_empty(0, stored.shape[1])
    if len(computed):
        new = forward(flat[computed])
        stored[slot[first]] = new[len(computed) - len(first) :]
    output = stored[slot.clamp(min=0)]
    output[computed] = new
    return output.unflatten(0, x.shape[:2])


def _has_hooks(model: Model) -> bool:
    """Whether the embedding or the first block has hooks, whose effect may differ between tokens."""
    places = [model.network.get_submodule(model.architecture.embed), *model.block(1).modules()]
    hooks = [hook for place in places for hook in (*place._forward_hooks.values(), *place._forward_pre_hooks.values())]
    # Hooks that transformers leaves behind after a request for hidden states only read.
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
    """Projections of the first block (the MLP as one) whose input depends on the token id only."""
    table, block = model.architecture, model.block(1)
    if table.is_inferred or table.flat_mlp or not table.causal:
        return ()
    linear = [path for path, module in block.named_modules() if type(module) in (nn.Linear, Conv1D)]
    apart = [path for path in linear if not path.startswith(f"{table.mlp}.") and path != table.heads_out]
    candidates = [table.mlp, *apart]
    inputs: dict[str, list[Tensor]] = {path: [] for path in candidates}
    texts = [[3, 5, 7, 11, 7], [7, 3, 3, 5, 11]]
    with contextlib.ExitStack() as hooks:
        for path in candidates:
            record = partial(_record_inputs, inputs[path])
            hooks.callback(block.get_submodule(path).register_forward_pre_hook(record).remove)
        try:
            for text in texts:
                model.body(input_ids=torch.tensor([text]), use_cache=False)
            return tuple(path for path in candidates if _depends_only_on_token(inputs[path], texts))
        except (AttributeError, RuntimeError, TypeError):  # a family with other arguments
            return ()


def _record_inputs(inputs: list[Tensor], _: nn.Module, args: tuple[Tensor, ...]) -> None:
    inputs.append(args[0][0].clone() if args else torch.empty(0))


def _depends_only_on_token(inputs: Sequence[Tensor], texts: Sequence[Sequence[int]]) -> bool:
    rows: dict[int, Tensor] = {}
    for values, text in zip(inputs, texts, strict=False):
        if len(values) != len(text):
            return False
        for token, row in zip(text, values, strict=True):
            if not torch.equal(rows.setdefault(token, row), row):
                return False
    return len(inputs) == len(texts)
