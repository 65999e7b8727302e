"""States of a prompt, kept by hooks during the first forward pass of the generation that follows it: a gauge needs no second one."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ontogeny.models.hooks import ATTENTION_PARTS, StopForward, read_hooks
from ontogeny.models.model import Model
from ontogeny.sites import HEAD_PARTS, Site
from ontogeny.steering.cached_prompts import run_with_cache

_MOST_CACHED = 4096
"""Tokens of all copies of a KV cache in one forward pass."""


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
                    self._cache = copy.deepcopy(getattr(output, "past_key_values", None))

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
        most, states = max(1, _MOST_CACHED // max(prompt, 1)), list[Tensor]()
        for start in range(0, len(tails), most):
            chosen = tails[start : start + most]
            last = [len(ids) - 1 for ids, _ in chosen]
            values = self._run([ids for ids, _ in chosen], [site for _, site in chosen], prompt)
            for row, (_, site) in enumerate(chosen):
                states.append(_of_head(self._model, site, values[site.part, site.layer][row, last[row]]))
        return states

    def _run(
        self, tails: Sequence[Int[Tensor, " token"]], sites: Sequence[Site], prompt: int
    ) -> dict[tuple[str, int], Tensor]:
        """Values at the sites for a batch of tails, padded on the right; nothing after the last site is computed."""
        pad = torch.nn.utils.rnn.pad_sequence
        ids = pad(list(tails), batch_first=True).to(self._model.device)
        mask = pad([torch.ones(prompt + len(tail), dtype=torch.long) for tail in tails], batch_first=True)
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(tails))
        wanted = list(dict.fromkeys((site.part, site.layer) for site in sites))
        values: dict[tuple[str, int], Tensor] = {}

        def sink(part: str, layer: int, value: Tensor) -> None:
            values[part, layer] = value.clone()  # Falcon adds attention to the output of its MLP in place
            if len(values) == len(wanted):
                raise StopForward

        with read_hooks(self._model, wanted, sink), contextlib.suppress(StopForward):
            run_with_cache(self._model, ids, mask.to(self._model.device), cache)
        return values


def can_record(model: Model, sites: Sequence[Site]) -> bool:
    """Whether all sites are read by hooks on modules; queries and keys are read where attention is computed."""
    return not any(site.part in ATTENTION_PARTS for site in sites)


def _of_head(model: Model, site: Site, value: Float[Tensor, "*token d"]) -> Float[Tensor, "*token d"]:
    if site.part in HEAD_PARTS and site.head is not None:
        value = value.reshape(*value.shape[:-1], model.heads, -1)[..., site.head, :]
    return value.float().cpu()
