"""States of a prompt, kept by hooks during the first forward pass of the generation that follows it: a gauge needs no second one."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from ontogeny.models.hooks import ATTENTION_PARTS, StopForward, read_hooks
from ontogeny.models.kv_cache import copy_cache
from ontogeny.models.model import Model
from ontogeny.sites import HEAD_PARTS, Site
from ontogeny.steering.cached_prompts import run_with_cache

_MOST_CACHED = 4096
"""Tokens of all copies of a KV cache in one forward pass."""
_TOLERANCE = 1e-4
"""Maximum difference of tails in one row from tails in rows of their own, relative to the largest entry of a state."""
_BRANCHES: "weakref.WeakKeyDictionary[nn.Module, bool]" = weakref.WeakKeyDictionary()
"""Whether tails in one row give the same states as in rows of their own: both are run the first time that a network has some."""


class PromptStates:
    """States of one prompt at some sites, and its KV cache.

    Args:
        model: The model.
        sites: Where it is read.
        cached: Whether the KV cache is kept, for `continued`.
    """

    def __init__(self, model: Model, sites: Sequence[Site], *, cached: bool = False) -> None:
        self._model, self._cached = model, cached
        self._wanted = list(dict.fromkeys((site.part, site.layer) for site in sites))
        self._values: dict[tuple[str, int], Tensor] = {}
        self._sites: dict[Site, Tensor] = {}
        self._cache: Any = None

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep what the first forward pass inside the block computes; its batch must be the prompt alone, without padding."""
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(read_hooks(self._model, self._wanted, self._keep))

            def after_prompt(module: Any, arguments: Any, output: Any) -> None:
                hooks.close()  # the passes of the answer's tokens are those of a bare generation
                if self._cached:
                    # A copy, since the generation adds its own keys to it.
                    self._cache = copy_cache(getattr(output, "past_key_values", None))

            hooks.callback(self._model.network.register_forward_hook(after_prompt).remove)
            yield

    @torch.no_grad()
    def run(self, ids: Int[Tensor, " token"]) -> None:
        """Read a prompt without a generation."""
        cache = DynamicCache(config=self._model.network.config) if self._cached else None
        with read_hooks(self._model, self._wanted, self._keep):
            given = {} if cache is None else {"past_key_values": cache}
            self._model.body(input_ids=ids[None].to(self._model.device), use_cache=cache is not None, **given)
        self._cache = cache

    @property
    def can_continue(self) -> bool:
        """Whether the KV cache is there; a generation without one has none."""
        return self._cache is not None

    def _keep(self, part: str, layer: int, value: Tensor) -> None:
        self._values[part, layer] = value[0].clone()  # as below

    def at(self, site: Site) -> Float[Tensor, "token d"]:
        """The states of all tokens of the prompt at a site, float32 on the CPU."""
        if site not in self._sites:
            self._sites[site] = _of_head(self._model, site, self._values[site.part, site.layer])
        return self._sites[site]

    @torch.no_grad()
    def continued(self, tails: Sequence[tuple[Int[Tensor, " token"], Site]], prompt: int) -> list[Float[Tensor, " d"]]:
        """The state of the last token of each tail, as if it followed the prompt, at a site of its own.

        Args:
            tails: Tokens after the prompt, at least one, and where their last one is read.
            prompt: Tokens of the prompt.
        """
        tree = token_tree(tuple(tuple(ids.tolist()) for ids, _ in tails))
        if not self._may_branch(prompt + len(tree.ids)):
            return self._in_rows(tails, prompt)
        if self._model.network in _BRANCHES:  # both ways gave the same
            return self._in_one_row(tree, tails, prompt)
        apart = self._in_rows(tails, prompt)
        try:
            together = self._in_one_row(tree, tails, prompt)
            same = all(
                bool((a - b).abs().max() <= _TOLERANCE * a.abs().max()) for a, b in zip(apart, together, strict=True)
            )
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # a family with masks of its own
            same = False
        _BRANCHES[self._model.network] = same
        return apart

    def _may_branch(self, columns: int) -> bool:
        """Whether tails may share a row: not where a family makes its mask from other things than the one that is given."""
        config = self._model.network.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        return (
            _BRANCHES.get(self._model.network, True)
            and not self._model.architecture.is_inferred
            and self._model.network.dtype == torch.float32
            and config._attn_implementation in ("sdpa", "eager")
            and not (window and columns > window)
        )

    def _in_one_row(
        self, tree: "TokenTree", tails: Sequence[tuple[Int[Tensor, " token"], Site]], prompt: int
    ) -> list[Float[Tensor, " d"]]:
        """All tails in one row after the prompt, in which each token sees the prompt and its own tail."""
        count, device = len(tree.ids), self._model.device
        mask = torch.zeros(count, prompt + count, dtype=self._model.network.dtype)
        mask[:, prompt:].masked_fill_(~tree.sees, torch.finfo(mask.dtype).min)
        arguments = {
            "input_ids": tree.ids[None].to(device),
            "attention_mask": mask[None, None].to(device),
            "position_ids": (prompt + tree.depths)[None].to(device),
            "past_key_values": copy_cache(self._cache),
        }
        values = self._read_in([site for _, site in tails], lambda: self._model.network(use_cache=True, **arguments))
        return [
            _of_head(self._model, site, values[site.part, site.layer][0, end])
            for (_, site), end in zip(tails, tree.ends, strict=True)
        ]

    def _in_rows(self, tails: Sequence[tuple[Int[Tensor, " token"], Site]], prompt: int) -> list[Float[Tensor, " d"]]:
        """Each tail in a row of its own, padded on the right, after a copy of the prompt."""
        most, states = max(1, _MOST_CACHED // max(prompt, 1)), list[Tensor]()
        pad = torch.nn.utils.rnn.pad_sequence
        for chosen in (tails[start : start + most] for start in range(0, len(tails), most)):
            ids = pad([ids for ids, _ in chosen], batch_first=True).to(self._model.device)
            mask = pad([torch.ones(prompt + len(ids), dtype=torch.long) for ids, _ in chosen], batch_first=True)
            cache = copy_cache(self._cache)
            cache.batch_repeat_interleave(len(chosen))
            forward = functools.partial(run_with_cache, self._model, ids, mask.to(self._model.device), cache)
            values = self._read_in([site for _, site in chosen], forward)
            for row, (tail, site) in enumerate(chosen):
                states.append(_of_head(self._model, site, values[site.part, site.layer][row, len(tail) - 1]))
        return states

    def _read_in(self, sites: Sequence[Site], forward: Callable[[], Any]) -> dict[tuple[str, int], Tensor]:
        """Values at the sites in one forward pass; nothing after the last site is computed."""
        wanted = list(dict.fromkeys((site.part, site.layer) for site in sites))
        values: dict[tuple[str, int], Tensor] = {}

        def sink(part: str, layer: int, value: Tensor) -> None:
            values[part, layer] = value.clone()  # Falcon adds attention to the output of its MLP in place
            if len(values) == len(wanted):
                raise StopForward

        with read_hooks(self._model, wanted, sink), contextlib.suppress(StopForward):
            forward()
        return values


@dataclass(frozen=True, eq=False)
class TokenTree:
    """Sequences as one row of tokens, in which equal beginnings are shared."""

    ids: Int[Tensor, " token"]
    depths: Int[Tensor, " token"]
    """Tokens before each one in its sequence."""
    sees: Bool[Tensor, "token token"]
    """Which tokens each one attends to: those before it in its sequence, and itself."""
    ends: tuple[int, ...]
    """Place of the last token of each sequence."""


@functools.lru_cache(maxsize=64)
def token_tree(sequences: tuple[tuple[int, ...], ...]) -> TokenTree:
    """The sequences, none of which is empty, with shared beginnings."""
    places: dict[tuple[int, int], int] = {}
    parents, ends = list[int](), list[int]()
    for ids in sequences:
        at = -1
        for token in ids:
            if (at, token) not in places:
                places[at, token] = len(parents)
                parents.append(at)
            at = places[at, token]
        ends.append(at)
    sees = torch.eye(len(parents), dtype=torch.bool)
    for place, parent in enumerate(parents):
        if parent >= 0:
            sees[place] |= sees[parent]
    return TokenTree(torch.tensor([token for _, token in places]), sees.sum(1) - 1, sees, tuple(ends))


def can_record(model: Model, sites: Sequence[Site]) -> bool:
    """Whether all sites are read by hooks on modules; queries and keys are read where attention is computed."""
    return not any(site.part in ATTENTION_PARTS for site in sites)


def _of_head(model: Model, site: Site, value: Float[Tensor, "*token d"]) -> Float[Tensor, "*token d"]:
    if site.part in HEAD_PARTS and site.head is not None:
        value = value.reshape(*value.shape[:-1], model.heads, -1)[..., site.head, :]
    return value.float().cpu()
