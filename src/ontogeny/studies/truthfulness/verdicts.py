"""Ask a model whether statements are true, and push its answer along a direction while it reads the end of each (arXiv:2310.06824).

A prompt is some statements with their verdicts, the statement, and what asks for the verdict. Nothing before the statement's last
two tokens is pushed, so all before them runs once; every push then costs these tokens and the question alone.
"""

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ontogeny.data.examples import Example
from ontogeny.data.positions import tokens_in_span
from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import VerdictQuestion, VerdictTokens
from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.cached_prompts import run_prompts, run_with_cache
from ontogeny.steering.generate import check_can_generate

_PUSHED_TOKENS = 2
"""Tokens that are pushed: the statement's last and the one before it."""
_BATCH_SIZE = 128


"""The papers' question, and how the raised models' island judges what it hears."""


@dataclass(frozen=True, eq=False)
class _CachedBatch:
    rows: slice
    cache: DynamicCache | None
    ids: Int[Tensor, "row token"]
    """From the first pushed token on, padded on the right."""
    mask: Int[Tensor, "row column"]
    """Of the cached tokens and these."""
    last: Int[Tensor, " row"]
    """Which of these foretells the verdict."""


@dataclass(frozen=True, eq=False)
class VerdictPrompts:
    """Statements that a model has read up to their last two tokens: `asked.differences(push, layers)`."""

    model: Model
    verdicts: VerdictTokens
    batches: tuple[_CachedBatch, ...]

    @torch.no_grad()
    def differences(
        self, push: Float[Tensor, "example d"] | None = None, layers: Sequence[int] = ()
    ) -> Float[Tensor, " example"]:
        """P(true) − P(false) of each statement; with `push` added behind each of these blocks at the statement's last two tokens."""
        found = []
        for one in self.batches:
            with contextlib.ExitStack() as open_hooks:
                if push is not None:
                    edit = _push_hook(push[one.rows].to(self.model.device))
                    for layer in layers:
                        open_hooks.enter_context(write_hooks(self.model, Site("resid", layer), edit))
                # A pass adds its own keys to the cache: it gets a copy.
                logits = run_with_cache(self.model, one.ids, one.mask, copy.deepcopy(one.cache)).logits
            rows = torch.arange(len(one.ids), device=logits.device)
            chances = logits[rows, one.last].float().softmax(-1)
            found.append((chances[:, self.verdicts.true] - chances[:, self.verdicts.false]).cpu())
        return torch.cat(found)


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
    """Read the statements behind the shots, up to the tokens that are pushed.

    Raises:
        BadInput: a model that foretells nothing, verdicts that its tokenizer cannot tell apart, or a prompt that is too long or too short.
    """
    check_can_generate(model)
    verdicts = question.verdicts(model.tokenizer)
    if verdicts is None:
        raise BadInput(
            f"the tokenizer cannot tell the verdicts {question.true!r} and {question.false!r} apart. "
            "Name two others with --verdicts."
        )
    before = "".join(_shot_text(question, shot) for shot in shots)
    texts = [before + statement.rstrip() + question.suffix for statement in statements]
    encodings = encode_texts(model.tokenizer, texts, [None] * len(texts))
    heads, tails = [], []
    for encoding, statement in zip(encodings, statements, strict=True):
        end = len(before) + len(statement.rstrip())
        at = int(tokens_in_span(encoding.offsets, end - 1, end).nonzero()[-1])
        # What a tokenizer puts behind a text (an EOS, say) is no part of the question.
        upto = int((encoding.offsets[:, 1] > 0).nonzero()[-1]) + 1
        asked = torch.cat([encoding.ids[:upto], torch.tensor(verdicts.shared, dtype=torch.long)])
        if at < _PUSHED_TOKENS or len(asked) > model.context:
            fault = "is too short to be pushed" if at < _PUSHED_TOKENS else f"makes a prompt of {len(asked)} tokens"
            raise BadInput(
                f"the statement {statement[:60]!r} {fault} (the context has {model.context}). Leave it out, or ask with fewer --shots."
            )
        heads.append(encoding.ids[: at + 1 - _PUSHED_TOKENS])
        tails.append(asked[at + 1 - _PUSHED_TOKENS :])
    slices = [slice(i, min(i + _BATCH_SIZE, len(texts))) for i in range(0, len(texts), _BATCH_SIZE)]
    return VerdictPrompts(
        model, verdicts, tuple(_cache_heads(model, rows, heads[rows], tails[rows]) for rows in slices)
    )


def _shot_text(question: VerdictQuestion, shot: Example) -> str:
    return f"{shot.text.rstrip()}{question.suffix}{question.true if shot.target else question.false}\n"


def _cache_heads(model: Model, rows: slice, heads: list[Tensor], tails: list[Tensor]) -> _CachedBatch:
    last = torch.tensor([len(tail) - 1 for tail in tails], device=model.device)
    return _CachedBatch(rows, *run_prompts(model, heads, tails), last)
