"""Ask a model whether statements are true, and push its answer along a direction while it reads the end of each (arXiv:2310.06824).

A prompt is some statements with their verdicts, the statement, and what asks for the verdict. Nothing before the statement's last
two tokens is pushed, so all before them runs once; every push then costs these tokens and the question alone.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from ontogeny.concept import Example
from ontogeny.encoding import encode_all
from ontogeny.errors import BadInput
from ontogeny.lab.generation import check_speaks
from ontogeny.lab.prefixed import begin, run_cached
from ontogeny.model import Model, writing
from ontogeny.position import touching
from ontogeny.sites import Site

PUSHED = 2
"""Tokens that are pushed: the statement's last and the one before it."""
BATCH = 128


@dataclass(frozen=True)
class Question:
    """What asks for a verdict, and the two verdicts."""

    suffix: str
    true: str
    false: str
    shots: int
    """Statements with their verdicts before each one that is asked about, half of them true."""

    def verdicts(self, tokenizer: PreTrainedTokenizerBase) -> "Verdicts | None":
        """The tokens that tell the verdicts apart; None where the tokenizer does not know them."""
        before = f"so .{self.suffix}"
        known = tokenizer(before, add_special_tokens=False)["input_ids"]
        both = [tokenizer(before + word, add_special_tokens=False)["input_ids"] for word in (self.true, self.false)]
        if any(ids[: len(known)] != known for ids in both):
            return None
        true, false = (ids[len(known) :] for ids in both)
        alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(true, false, strict=False)))
        if alike >= min(len(true), len(false)) or tokenizer.unk_token_id in (true[alike], false[alike]):
            return None
        return Verdicts(tuple(true[:alike]), true[alike], false[alike])


@dataclass(frozen=True)
class Verdicts:
    shared: tuple[int, ...]
    """Tokens that both begin with: a space, where that is a token of its own."""
    true: int
    false: int


QUESTIONS = (Question(" This statement is:", " TRUE", " FALSE", 4), Question("", " right", " wrong", 0))
"""The papers' question, and how the raised models' island judges what it hears."""


def question_for(tokenizer: PreTrainedTokenizerBase) -> Question | None:
    """The first of the known questions whose verdicts a tokenizer can say."""
    return next((question for question in QUESTIONS if question.verdicts(tokenizer)), None)


@dataclass(frozen=True, eq=False)
class _Batch:
    rows: slice
    cache: DynamicCache | None
    ids: Int[Tensor, "row token"]
    """From the first pushed token on, padded on the right."""
    mask: Int[Tensor, "row column"]
    """Of the cached tokens and these."""
    last: Int[Tensor, " row"]
    """Which of these foretells the verdict."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Statements that a model has read up to their last two tokens: `asked.differences(push, layers)`."""

    model: Model
    verdicts: Verdicts
    batches: tuple[_Batch, ...]

    @torch.no_grad()
    def differences(
        self, push: Float[Tensor, "example d"] | None = None, layers: Sequence[int] = ()
    ) -> Float[Tensor, " example"]:
        """P(true) − P(false) of each statement; with `push` added behind each of these blocks at the statement's last two tokens."""
        found = []
        for one in self.batches:
            with contextlib.ExitStack() as open_hooks:
                if push is not None:
                    edit = _add(push[one.rows].to(self.model.device))
                    for layer in layers:
                        open_hooks.enter_context(writing(self.model, Site("resid", layer), edit))
                # A pass adds its own keys to the cache: it gets a copy.
                logits = run_cached(self.model, one.ids, one.mask, copy.deepcopy(one.cache)).logits
            rows = torch.arange(len(one.ids), device=logits.device)
            chances = logits[rows, one.last].float().softmax(-1)
            found.append((chances[:, self.verdicts.true] - chances[:, self.verdicts.false]).cpu())
        return torch.cat(found)


def _add(push: Float[Tensor, "row d"]) -> Callable[[Tensor], Tensor]:
    def edit(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, :PUSHED] += push[:, None].to(h)
        return h

    return edit


@torch.no_grad()
def ask(model: Model, question: Question, shots: Sequence[Example], statements: Sequence[str]) -> Asked:
    """Read the statements behind the shots, up to the tokens that are pushed.

    Raises:
        BadInput: a model that foretells nothing, verdicts that its tokenizer cannot tell apart, or a prompt that is too long or too short.
    """
    check_speaks(model)
    verdicts = question.verdicts(model.tokenizer)
    if verdicts is None:
        raise BadInput(
            f"the tokenizer cannot tell the verdicts {question.true!r} and {question.false!r} apart. "
            "Name two others with --verdicts."
        )
    before = "".join(_shown(question, shot) for shot in shots)
    texts = [before + statement.rstrip() + question.suffix for statement in statements]
    encodings = encode_all(model.tokenizer, texts, [None] * len(texts))
    heads, tails = [], []
    for encoding, statement in zip(encodings, statements, strict=True):
        end = len(before) + len(statement.rstrip())
        at = int(touching(encoding.offsets, end - 1, end).nonzero()[-1])
        # What a tokenizer puts behind a text (an EOS, say) is no part of the question.
        upto = int((encoding.offsets[:, 1] > 0).nonzero()[-1]) + 1
        asked = torch.cat([encoding.ids[:upto], torch.tensor(verdicts.shared, dtype=torch.long)])
        if at < PUSHED or len(asked) > model.context:
            fault = "is too short to be pushed" if at < PUSHED else f"makes a prompt of {len(asked)} tokens"
            raise BadInput(
                f"the statement {statement[:60]!r} {fault} (the context has {model.context}). Leave it out, or ask with fewer --shots."
            )
        heads.append(encoding.ids[: at + 1 - PUSHED])
        tails.append(asked[at + 1 - PUSHED :])
    slices = [slice(i, min(i + BATCH, len(texts))) for i in range(0, len(texts), BATCH)]
    return Asked(model, verdicts, tuple(_begun(model, rows, heads[rows], tails[rows]) for rows in slices))


def _shown(question: Question, shot: Example) -> str:
    return f"{shot.text.rstrip()}{question.suffix}{question.true if shot.target else question.false}\n"


def _begun(model: Model, rows: slice, heads: list[Tensor], tails: list[Tensor]) -> _Batch:
    last = torch.tensor([len(tail) - 1 for tail in tails], device=model.device)
    return _Batch(rows, *begin(model, heads, tails), last)
