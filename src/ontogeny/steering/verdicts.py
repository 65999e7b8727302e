"""Verdicts of a model on statements, while a vector is added at the end of each statement (arXiv:2310.06824).

A prompt holds some statements with their verdicts, the statement and the question. Only the statement's last two tokens are steered, so
everything before them runs once and stays in the KV cache.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ontogeny.data.examples import Example
from ontogeny.data.positions import tokens_in_span
from ontogeny.data.tokenization import encode_texts
from ontogeny.data.verdict_question import VerdictQuestion, VerdictTokens
from ontogeny.errors import BadInput
from ontogeny.models.forward import rope_switch
from ontogeny.models.hooks import write_hooks
from ontogeny.models.kv_cache import copy_cache
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.cached_prompts import run_prompts, run_with_cache
from ontogeny.steering.steer import check_can_generate

_PUSHED_TOKENS = 2
"""Steered tokens: the last one of the statement and the one before it."""
_BATCH_SIZE = 128


@dataclass(frozen=True, eq=False)
class _CachedBatch:
    rows: slice
    cache: DynamicCache | None
    ids: Int[Tensor, "row token"]
    """Tokens from the first steered one on, padded on the right."""
    mask: Int[Tensor, "row column"]
    """Mask of the cached tokens and of `ids`."""
    last: Int[Tensor, " row"]
    """Index in `ids` of the token before the verdict."""


@dataclass(frozen=True, eq=False)
class VerdictPrompts:
    """Prompts whose tokens before the steered ones are in the KV cache."""

    model: Model
    verdicts: VerdictTokens
    batches: tuple[_CachedBatch, ...]

    @torch.no_grad()
    def differences(
        self, push: Float[Tensor, "example d"] | None = None, layers: Sequence[int] = ()
    ) -> Float[Tensor, " example"]:
        """P(true) − P(false) of each statement, with `push` added after each of the layers at the steered tokens."""
        parts = []
        for batch in self.batches:
            with contextlib.ExitStack() as hooks:
                if push is not None:
                    edit = _push_hook(push[batch.rows].to(self.model.device))
                    for layer in layers:
                        hooks.enter_context(write_hooks(self.model, Site("resid", layer), edit))
                # A forward pass extends its cache, so it gets a copy.
                logits = run_with_cache(self.model, batch.ids, batch.mask, copy_cache(batch.cache)).logits
            rows = torch.arange(len(batch.ids), device=logits.device)
            chances = logits[rows, batch.last].float().softmax(-1)
            parts.append((chances[:, self.verdicts.true] - chances[:, self.verdicts.false]).cpu())
        return torch.cat(parts)


def _push_hook(push: Float[Tensor, "row d"]) -> Callable[[Tensor], Tensor]:
    def edit(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, :_PUSHED_TOKENS] += push[:, None].to(h)
        return h

    return edit


@torch.no_grad()
def run_verdict_prompts(
    model: Model, question: VerdictQuestion, shots: Sequence[Example], statements: Sequence[str]
) -> VerdictPrompts:
    """Run the shots and statements up to the steered tokens.

    Raises:
        BadInput: a model that is not causal, verdicts that its tokenizer cannot tell apart, or a prompt that is too long or too short.
    """
    check_can_generate(model)
    verdicts = question.verdicts(model.tokenizer)
    if verdicts is None:
        raise BadInput(
            f"`verdicts` must begin with different tokens, got {question.true!r} and {question.false!r}: choose two other words."
        )
    before = "".join(
        f"{shot.text.rstrip()}{question.suffix}{question.true if shot.target else question.false}\n" for shot in shots
    )
    texts = [before + statement.rstrip() + question.suffix for statement in statements]
    encodings = encode_texts(model.tokenizer, texts, [None] * len(texts))
    heads, tails = [], []
    for encoding, statement in zip(encodings, statements, strict=True):
        end = len(before) + len(statement.rstrip())
        at = int(tokens_in_span(encoding.offsets, end - 1, end).nonzero()[-1])
        # Tokens that a tokenizer adds after a text, such as EOS, are not part of the question.
        length = int((encoding.offsets[:, 1] > 0).nonzero()[-1]) + 1
        ids = torch.cat([encoding.ids[:length], torch.tensor(verdicts.shared, dtype=torch.long)])
        if at < _PUSHED_TOKENS or len(ids) > model.context:
            fault = "is too short to be steered" if at < _PUSHED_TOKENS else f"makes a prompt of {len(ids)} tokens"
            raise BadInput(
                f"the statement {statement[:60]!r} {fault} (the context has {model.context}): remove it, or lower `shots`."
            )
        heads.append(encoding.ids[: at + 1 - _PUSHED_TOKENS])
        tails.append(ids[at + 1 - _PUSHED_TOKENS :])
    slices = _slices([len(head) + len(tail) for head, tail in zip(heads, tails, strict=True)], rope_switch(model))
    last = torch.tensor([len(tail) - 1 for tail in tails], device=model.device)
    batches = (_CachedBatch(rows, *run_prompts(model, heads[rows], tails[rows]), last[rows]) for rows in slices)
    return VerdictPrompts(model, verdicts, tuple(batches))


def _slices(lengths: Sequence[int], switch: int | None) -> list[slice]:
    """Batches of consecutive texts, none with texts on both sides of the switch."""
    slices, start = list[slice](), 0
    for i in range(1, len(lengths) + 1):
        full = i == len(lengths) or i - start == _BATCH_SIZE
        if full or (switch is not None and (lengths[i] > switch) != (lengths[start] > switch)):
            slices.append(slice(start, i))
            start = i
    return slices
