"""Questions that ask for a verdict on a statement, such as "This statement is: TRUE"."""

import itertools
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class VerdictQuestion:
    """A question that asks for a verdict on a statement, and the two verdicts."""

    suffix: str = " This statement is:"
    true: str = " TRUE"
    false: str = " FALSE"
    shots: int = 4
    """Statements with their verdicts before the statement in question, half of them true."""

    def verdicts(self, tokenizer: PreTrainedTokenizerBase) -> "VerdictTokens | None":
        """Token ids of the verdicts; None if the tokenizer cannot tell them apart."""
        before = f"so .{self.suffix}"
        known = tokenizer(before, add_special_tokens=False)["input_ids"]
        both = [tokenizer(before + word, add_special_tokens=False)["input_ids"] for word in (self.true, self.false)]
        if any(ids[: len(known)] != known for ids in both):
            return None
        true, false = (ids[len(known) :] for ids in both)
        alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(true, false, strict=False)))
        if alike >= min(len(true), len(false)) or tokenizer.unk_token_id in (true[alike], false[alike]):
            return None
        return VerdictTokens(tuple(true[:alike]), true[alike], false[alike])


@dataclass(frozen=True)
class VerdictTokens:
    """Token ids of two verdicts."""

    shared: tuple[int, ...]
    """First tokens of both, such as a space that is a token by itself."""
    true: int
    false: int


VERDICT_QUESTIONS = (VerdictQuestion(), VerdictQuestion("", " right", " wrong", 0))
"""The question of arXiv:2310.06824, and the one that the toy models answer."""


def verdict_question_for(tokenizer: PreTrainedTokenizerBase) -> VerdictQuestion | None:
    """The first of `VERDICT_QUESTIONS` whose verdicts the tokenizer can tell apart."""
    return next((question for question in VERDICT_QUESTIONS if question.verdicts(tokenizer)), None)
