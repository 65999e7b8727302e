"""Score answers under many edits with a KV cache of the prompts, which run once.

An edit of `last` or `generated` tokens changes nothing before the last token of a prompt, so the cache holds the tokens before it, and 200
controls cost 200 times the answers, not the prompts. The last token of an answer is never run; answers that differ in it alone share a row.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ontogeny.errors import BadInput
from ontogeny.models.forward import rope_switch, split_at_switch
from ontogeny.models.kv_cache import copy_cache
from ontogeny.models.model import Model
from ontogeny.steering.log_likelihood import TokenizedAnswer
from ontogeny.steering.padding import pad_left
from ontogeny.steering.steer import Edits, as_edits, check_can_generate, steer


@dataclass(frozen=True, eq=False)
class _Row:
    ids: Int[Tensor, " token"]
    """Prompt and answer without the answer's last token."""
    prompt: int
    answers: tuple[int, ...]
    """Indices of the answers it scores."""


@dataclass(frozen=True, eq=False)
class _Batch:
    rows: list[int]
    """Indices into `CachedPrompts.rows`."""
    cache: DynamicCache | None
    """KV cache of all but the last token of each prompt; None if no prompt has more than one."""
    ids: Int[Tensor, "row token"]
    """The prompt's last token and the answer without its last, padded on the right."""
    mask: Int[Tensor, "row column"]
    """Of the cached tokens and `ids`."""
    skipped: tuple[int, ...]
    """Tokens of each row's `ids` before the prompt's last; 0 if they are cached."""


@dataclass(frozen=True, eq=False)
class CachedPrompts:
    """Answers whose prompts are in a KV cache: `CachedPrompts.of(model, answers).scores(edits)`."""

    model: Model
    answers: tuple[TokenizedAnswer, ...]
    rows: tuple[_Row, ...]
    batches: tuple[_Batch, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, answers: Sequence[TokenizedAnswer], *, batch: int = 32) -> "CachedPrompts":
        """Run the prompts, unsteered."""
        check_can_generate(model)
        rows = _rows(answers)
        order = sorted(range(len(rows)), key=lambda i: rows[i].prompt)
        # An answer's last token is never run, but counts for the length of its text.
        switch, whole, heads = rope_switch(model), [len(row.ids) + 1 for row in rows], [row.prompt - 1 for row in rows]
        sides = [
            part for side in split_at_switch(order, whole, switch) for part in split_at_switch(side, heads, switch)
        ]
        batches = []
        for chunk in (side[start : start + batch] for side in sides for start in range(0, len(side), batch)):
            # A head below the switch of a text above it has no cache that could be used.
            across = switch is not None and whole[chunk[0]] > switch >= heads[chunk[0]]
            batches.append(_run_batch(model, rows, chunk, cached=not across))
        return cls(model, tuple(answers), rows, tuple(batches))

    @torch.no_grad()
    def scores(self, edits: Edits = ()) -> list[Float[Tensor, " token"]]:
        """The log-probability of each token of each answer, as `token_log_likelihoods` returns it.

        Raises:
            BadInput: an edit of tokens before the last of the prompt.
        """
        early = [
            e
            for e in as_edits(edits)
            if not e.what.is_noop and (e.where not in ("last", "generated") or e.what.kind != "activation")
        ]
        if early:
            raise BadInput(
                f"edits of cached prompts must be of `last` or `generated` tokens, got {early[0].where!r} at {early[0].site}: "
                "use `token_log_likelihoods` for others."
            )
        scores: dict[int, Tensor] = {}
        for batch in self.batches:
            scores.update(self._scores(batch, edits))
        return [scores[i] for i in range(len(self.answers))]

    def _scores(self, batch: _Batch, edits: Edits) -> dict[int, Tensor]:
        rows = [self.rows[i] for i in batch.rows]
        with steer(self.model, edits, prompts=[row.prompt for row in rows]):
            # A copy, since the forward pass adds its own keys to the cache.
            logits = run_with_cache(self.model, batch.ids, batch.mask, copy_cache(batch.cache)).logits
        scores = logits.float().log_softmax(-1).cpu()
        return {
            i: scores[place, skip : skip + self.answers[i].tokens].gather(1, self.answers[i].ids[row.prompt :, None])[
                :, 0
            ]
            for place, (row, skip) in enumerate(zip(rows, batch.skipped, strict=True))
            for i in row.answers
        }


def _rows(answers: Sequence[TokenizedAnswer]) -> tuple[_Row, ...]:
    """Answers that are equal up to their last token share a row."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for i, answer in enumerate(answers):
        rows.setdefault((answer.prompt, *answer.ids[:-1].tolist()), []).append(i)
    return tuple(_Row(answers[same[0]].ids[:-1], answers[same[0]].prompt, tuple(same)) for same in rows.values())


def _run_batch(model: Model, rows: Sequence[_Row], chunk: list[int], *, cached: bool = True) -> _Batch:
    starts = [rows[i].prompt - 1 if cached else 0 for i in chunk]
    heads = [rows[i].ids[:start] for i, start in zip(chunk, starts, strict=True)]
    tails = [rows[i].ids[start:] for i, start in zip(chunk, starts, strict=True)]
    skipped = tuple(rows[i].prompt - 1 - start for i, start in zip(chunk, starts, strict=True))
    return _Batch(chunk, *run_prompts(model, heads, tails), skipped)


def run_prompts(
    model: Model, heads: Sequence[Int[Tensor, " token"]], tails: Sequence[Int[Tensor, " token"]]
) -> tuple[DynamicCache | None, Int[Tensor, "row token"], Int[Tensor, "row column"]]:
    """Run the heads; return their KV cache (None if all are empty), the tails padded on the right, and the mask of both."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(list(tails), batch_first=True).to(model.device)
    mask = pad([torch.ones_like(tail) for tail in tails], batch_first=True).to(model.device)
    if not any(map(len, heads)):
        return None, ids, mask
    before, before_mask = (part.to(model.device) for part in pad_left(heads, 0))
    cache = DynamicCache(config=model.network.config)
    run_with_cache(model, before, before_mask, cache)
    return cache, ids, torch.cat([before_mask, mask], 1)


def run_with_cache(
    model: Model, ids: Int[Tensor, "row token"], mask: Int[Tensor, "row column"], cache: DynamicCache | None
) -> Any:
    """Run `ids` after the cached tokens and add them to the cache; the mask covers both."""
    arguments: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": mask,
        "past_key_values": cache,
        "use_cache": cache is not None,
    }
    if "position_ids" in inspect.signature(type(model.network).forward).parameters:
        # Other families count from the mask or have no positions.
        arguments["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return model.network(**arguments)
