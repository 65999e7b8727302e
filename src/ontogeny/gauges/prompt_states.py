"""States of a prompt and of begun answers after it, kept by hooks during the first forward pass of a generation.

Begun answers join the prompt in that pass: each of their tokens sees the prompt and its own answer alone, and the KV cache is cut back
to the prompt before the generation goes on. Where a family may not do so they run in rows of their own on the prompt's KV cache.
"""

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
from ontogeny.steering.decoding import can_decode, takes_argument

_MOST_CACHED = 4096
"""Tokens of all copies of a KV cache in one forward pass."""
_TOLERANCE = 1e-4
"""Maximum difference of states in the joint pass from those of passes of their own, relative to the largest entry."""
_JOINS: "weakref.WeakKeyDictionary[nn.Module, bool]" = weakref.WeakKeyDictionary()
"""Whether the joint pass gives the same states: both ways are run the first time that a network has begun answers."""
_Values = dict[tuple[str, int], Tensor]


class PromptStates:
    """States of one prompt at some sites, and of begun answers after it.

    Args:
        model: The model.
        prompt: Tokens of the prompt.
        sites: Where it is read.
        answers: Tokens of each begun answer, at least one, and the site at which its last one is read.
    """

    def __init__(
        self,
        model: Model,
        prompt: Int[Tensor, " token"],
        sites: Sequence[Site],
        answers: Sequence[tuple[Int[Tensor, " token"], Site]] = (),
    ) -> None:
        self._model, self._prompt, self._answers = model, prompt, answers
        self._wanted = list(dict.fromkeys((site.part, site.layer) for site in (*sites, *(s for _, s in answers))))
        self._values: _Values = {}
        self._ends: list[Tensor] | None = None
        self._sites: dict[Site, Tensor] = {}
        self._cache: Any = None
        self._tree = token_tree(tuple(tuple(ids.tolist()) for ids, _ in answers)) if answers else None

    @property
    def joins(self) -> bool:
        """Whether the begun answers run in the pass of the prompt: `join` is the first pass of its generation."""
        return self._may_join and _JOINS.get(self._model.network, False)

    @property
    def _may_join(self) -> bool:
        """Not where a family makes its mask from other things than the one that is given."""
        if self._tree is None or not can_decode(self._model) or self._model.architecture.is_inferred:
            return False
        config = self._model.network.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        return (
            self._model.network.dtype == torch.float32
            and config._attn_implementation in ("sdpa", "eager")
            and takes_argument(self._model, "position_ids")
            and not (window and len(self._prompt) + len(self._tree.ids) >= window)
        )

    @torch.no_grad()
    def join(self, cache: DynamicCache) -> Float[Tensor, "1 vocab"]:
        """Run the prompt and the begun answers in one pass, and keep their states.

        Args:
            cache: An empty KV cache; afterwards that of the prompt.

        Returns:
            Logits after the prompt.
        """
        tree, prompt = self._tree, len(self._prompt)
        assert tree is not None
        count, device = prompt + len(tree.ids), self._model.device
        sees = torch.ones(count, count, dtype=torch.bool).tril_()
        sees[prompt:, prompt:] = tree.sees
        least = torch.finfo(self._model.network.dtype).min
        mask = torch.zeros(count, count, dtype=self._model.network.dtype).masked_fill_(~sees, least)
        positions = torch.cat([torch.arange(prompt), prompt + tree.depths])
        keep = takes_argument(self._model, "logits_to_keep")
        with read_hooks(self._model, self._wanted, self._keep):
            logits: Tensor = self._model.network(
                input_ids=torch.cat([self._prompt, tree.ids])[None].to(device),
                attention_mask=mask[None, None].to(device),
                position_ids=positions[None].to(device),
                past_key_values=cache,
                use_cache=True,
                **({"logits_to_keep": torch.tensor([prompt - 1], device=device)} if keep else {}),
            ).logits
        cache.crop(-len(tree.ids))
        self._ends = [
            _of_head(self._model, site, self._values[site.part, site.layer][prompt + end])
            for (_, site), end in zip(self._answers, tree.ends, strict=True)
        ]
        return logits[:, 0 if keep else prompt - 1]

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep what the first forward pass inside the block computes; its batch must be the prompt alone, without padding."""
        with contextlib.ExitStack() as hooks:
            hooks.enter_context(read_hooks(self._model, self._wanted, self._keep))

            def after_prompt(module: Any, arguments: Any, output: Any) -> None:
                hooks.close()  # the passes of the answer's tokens are those of a bare generation
                if self._answers:
                    # A copy, since the generation adds its own keys to it.
                    self._cache = copy_cache(getattr(output, "past_key_values", None))

            hooks.callback(self._model.network.register_forward_hook(after_prompt).remove)
            yield

    @torch.no_grad()
    def run(self) -> None:
        """Read the prompt without a generation."""
        cache = DynamicCache(config=self._model.network.config) if self._answers else None
        if self.joins and cache is not None:
            self.join(cache)
            return
        with read_hooks(self._model, self._wanted, self._keep):
            given = {} if cache is None else {"past_key_values": cache}
            self._model.body(input_ids=self._prompt[None].to(self._model.device), use_cache=cache is not None, **given)
        self._cache = cache

    def _keep(self, part: str, layer: int, value: Tensor) -> None:
        self._values[part, layer] = value[0].clone()  # Falcon adds attention to the output of its MLP in place

    def at(self, site: Site) -> Float[Tensor, "token d"]:
        """The states of all tokens of the prompt at a site, float32 on the CPU."""
        if site not in self._sites:
            own = self._values[site.part, site.layer][: len(self._prompt)]
            self._sites[site] = _of_head(self._model, site, own)
        return self._sites[site]

    @torch.no_grad()
    def ends(self) -> list[Float[Tensor, " d"]] | None:
        """The state of the last token of each begun answer, at its site; None after a generation without a KV cache."""
        if self._ends is None and self._cache is not None:
            self._ends = self._in_rows()
            if self._may_join and self._model.network not in _JOINS:
                _JOINS[self._model.network] = self._joins_alike()
        return self._ends

    def _joins_alike(self) -> bool:
        """Whether the joint pass gives the states that were read."""
        joint = PromptStates(self._model, self._prompt, [], self._answers)
        try:
            joint.join(DynamicCache(config=self._model.network.config.get_text_config(decoder=True)))
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # a family with masks of its own
            return False
        sites = [site for _, site in self._answers]
        pairs = [*zip(self._ends or (), joint._ends or (), strict=True), *((self.at(s), joint.at(s)) for s in sites)]
        return all(bool((a - b).abs().max() <= _TOLERANCE * a.abs().max()) for a, b in pairs)

    def _in_rows(self) -> list[Float[Tensor, " d"]]:
        """Each begun answer in a row of its own, padded on the right, after a copy of the prompt."""
        prompt, states = len(self._prompt), list[Tensor]()
        most, pad = max(1, _MOST_CACHED // max(prompt, 1)), torch.nn.utils.rnn.pad_sequence
        for chosen in (self._answers[start : start + most] for start in range(0, len(self._answers), most)):
            ids = pad([ids for ids, _ in chosen], batch_first=True).to(self._model.device)
            mask = pad([torch.ones(prompt + len(ids), dtype=torch.long) for ids, _ in chosen], batch_first=True)
            cache = copy_cache(self._cache)
            cache.batch_repeat_interleave(len(chosen))
            forward = functools.partial(run_with_cache, self._model, ids, mask.to(self._model.device), cache)
            values = _read_until(self._model, [site for _, site in chosen], forward)
            for row, (tail, site) in enumerate(chosen):
                states.append(_of_head(self._model, site, values[site.part, site.layer][row, len(tail) - 1]))
        return states


def _read_until(model: Model, sites: Sequence[Site], forward: Callable[[], Any]) -> _Values:
    """Values at the sites in one forward pass; nothing after the last site is computed."""
    wanted = list(dict.fromkeys((site.part, site.layer) for site in sites))
    values: _Values = {}

    def sink(part: str, layer: int, value: Tensor) -> None:
        values[part, layer] = value.clone()
        if len(values) == len(wanted):
            raise StopForward

    with read_hooks(model, wanted, sink), contextlib.suppress(StopForward):
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
