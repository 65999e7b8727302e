"""Pairs of prompts that align token by token and differ in one place, mined from any labelled statements (arXiv:2504.02904 section 3).

Three pairings. `recall`: two questions of one pattern about different subjects, each answered by its own last word. `same_object`, the
paper's: a true and a false statement of the same last word and different subjects, both asked whether they are true. `one_span`: a true
and a false statement that differ in one span of as many tokens.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ontogeny.data.concept import Concept
from ontogeny.data.positions import Encoding, tokens_in_span
from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import PairingMode, parse_pairing
from ontogeny.studies.knowledge.pair_mining import CompletionPrompt, find_partners


@dataclass(frozen=True)
class TruthQuestion:
    """How a statement is asked whether it is true."""

    question: str = " This statement is:"
    right: str = " TRUE"
    wrong: str = " FALSE"
    shots: int = 4
    """Statements with their answers in front, in one order for all prompts: what they share is computed once."""


@dataclass(frozen=True)
class PairText:
    """Two prompts in words: what aligns under one tokenizer may be tried under another."""

    clean: CompletionPrompt
    corrupt: CompletionPrompt
    right: str
    wrong: str


@dataclass(frozen=True)
class PromptPair:
    """Two prompts of one length in tokens."""

    drawn: PairText
    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    right: int
    """First token of the clean prompt's answer that is not the corrupt one's."""
    wrong: int
    roles: tuple[str, ...]
    """What each token is: before, subject, subject_last, between, object, after, last."""


@dataclass(frozen=True)
class MinedPairs:
    """What was mined from one concept."""

    concept: str
    pairing: str
    pairs: tuple[PromptPair, ...]
    tried: int
    """Prompts that could have had a partner."""
    dropped: Mapping[str, int]
    """Why pairs that were found were left out."""

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def note(self) -> str:
        left = "".join(f"; {count} left out: {why}" for why, count in self.dropped.items())
        return f"pairing {self.pairing}: {len(self.pairs)} pairs of {self.tried} prompts{left}"


def mine_pairs(
    concept: Concept,
    tokenizer: Any,
    *,
    pairing: PairingMode = "auto",
    asking: TruthQuestion | None = None,
    most: int | None = 50,
    seed: int = 0,
) -> MinedPairs:
    """Up to `most` pairs of a concept's answers or statements; with `auto` the first pairing that gives any.

    Raises:
        BadInput: no pairs align, with how many prompts were tried and why.
    """
    orders = get_args(PairingMode)[1:] if parse_pairing(pairing) == "auto" else (pairing,)
    said = []
    for one in orders:
        found = _mine_with_pairing(concept, tokenizer, one, asking or TruthQuestion(), most, seed)
        if len(found):
            return found
        why = ", ".join(found.dropped) or "no two of one length differ as they should"
        said.append(f"{one}: {found.tried} prompts, {why}")
    raise BadInput(
        f"no pairs of {concept.name} align ({'; '.join(said)}). Give more statements of one pattern, or prompts with answers."
    )


def _mine_with_pairing(
    concept: Concept, tokenizer: Any, pairing: str, asking: TruthQuestion, most: int | None, seed: int
) -> MinedPairs:
    clean, corrupt = _prompts(concept, pairing, asking, seed)
    chosen = find_partners(tokenizer, clean, corrupt, pairing, seed) if clean and corrupt else []
    dropped: Counter[str] = Counter()
    pairs: list[PromptPair] = []
    for i, j in chosen:
        if most is not None and len(pairs) == most:
            break
        answers = (clean[i].answer, corrupt[j].answer) if pairing == "recall" else (asking.right, asking.wrong)
        made = align_pair(tokenizer, PairText(clean[i], corrupt[j], *answers), pairing)
        if isinstance(made, str):
            dropped[made] += 1
        else:
            pairs.append(made)
    return MinedPairs(
        concept.name, pairing, tuple(pairs), len(clean) if clean is corrupt else len(clean) + len(corrupt), dropped
    )


def realign_pairs(found: MinedPairs, tokenizer: Any) -> MinedPairs:
    """The same pairs under another tokenizer: those that align there, too."""
    made = [align_pair(tokenizer, pair.drawn, found.pairing) for pair in found.pairs]
    return MinedPairs(
        found.concept,
        found.pairing,
        tuple(m for m in made if isinstance(m, PromptPair)),
        found.tried,
        Counter(m for m in made if isinstance(m, str)),
    )


def _prompts(
    concept: Concept, pairing: str, asking: TruthQuestion, seed: int
) -> tuple[list[CompletionPrompt], list[CompletionPrompt]]:
    """What can stand on either side of a pair."""
    if pairing == "recall":
        both = [CompletionPrompt(a.prompt, a.right, a.group) for a in concept.answers] or _cloze_prompts(concept)
        return both, both
    if concept.kind != "binary":
        return [], []
    true, false = ([e for e in concept.examples if bool(e.target) is side] for side in (True, False))
    order = random.Random(seed)
    shown = [e for side in (true, false) for e in order.sample(side, min(asking.shots // 2, len(side)))]
    order.shuffle(shown)
    head = "".join(f"{e.text}{asking.question}{asking.right if e.target else asking.wrong}\n" for e in shown)
    return tuple([_question_prompt(e, head, asking) for e in side if e not in shown] for side in (true, false))  # type: ignore[return-value]


def _question_prompt(example: Any, head: str, asking: TruthQuestion) -> CompletionPrompt:
    word = _last_word(example.text)
    place = None if word is None else (len(head) + word[0], len(head) + word[1])
    return CompletionPrompt(head + example.text + asking.question, asking.right, example.group, place)


def _cloze_prompts(concept: Concept) -> list[CompletionPrompt]:
    """True statements up to their last word, which is the answer."""
    found = []
    for example in concept.examples if concept.kind == "binary" else ():
        word = _last_word(example.text)
        if example.target and word is not None and (said := example.text[: word[0]].rstrip()):
            found.append(CompletionPrompt(said, example.text[len(said) : word[1]], example.group))
    return found


def _last_word(text: str) -> tuple[int, int] | None:
    words = list(re.finditer(r"\w[\w'’-]*", text))
    return words[-1].span() if words else None


def align_pair(tokenizer: Any, drawn: PairText, pairing: str) -> PromptPair | str:
    """The pair in tokens, or why it does not align."""
    texts = [p.text + answer for p in (drawn.clean, drawn.corrupt) for answer in (drawn.right, drawn.wrong)]
    made = encode_texts(tokenizer, texts, [None] * 4)
    ours = _split_at_answer(made[0], made[1], len(drawn.clean.text))
    theirs = _split_at_answer(made[2], made[3], len(drawn.corrupt.text))
    if ours is None or theirs is None:
        return "answers that one token cannot tell apart"
    (clean, told), (corrupt, also) = ours, theirs
    if told != also:
        return "answers cut into other tokens"
    if len(clean) != len(corrupt):
        return "prompts of different lengths in tokens"
    differs = [x != y for x, y in zip(clean, corrupt, strict=True)]
    if not any(differs) or differs[-1]:
        return "prompts that differ in their last token, or nowhere"
    roles = _token_roles(made[0], len(clean), differs, drawn.clean.object, pairing)
    return PromptPair(drawn, clean, corrupt, told[0], told[1], roles)


def _split_at_answer(right: Encoding, wrong: Encoding, prompt: int) -> tuple[tuple[int, ...], tuple[int, int]] | None:
    """The tokens before the first in which the two answers differ, and the two that do."""
    a, b = right.ids.tolist(), wrong.ids.tolist()
    upto = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    # A token that holds the end of the prompt and the start of the answer would leave the prompt unfinished.
    if not upto or int(right.offsets[upto - 1, 1]) < len(right.text[:prompt].rstrip()) or bool(right.special[upto]):
        return None
    return tuple(a[:upto]), (a[upto], b[upto])


def _token_roles(
    made: Encoding, length: int, differs: Sequence[bool], object: tuple[int, int] | None, pairing: str
) -> tuple[str, ...]:
    first, last = differs.index(True), length - 1 - list(reversed(differs)).index(True)
    word = set() if object is None else set(tokens_in_span(made.offsets, *object).nonzero()[:, 0].tolist())
    # Twins that differ in their last word differ in the object; elsewhere, what differs is the subject.
    swapped = pairing == "one_span" and bool(word & set(range(first, last + 1)))
    roles = []
    for token in range(length):
        if token == length - 1:
            role = "last"
        elif token < first:
            role = "before"
        elif token <= last:
            role = "object" if swapped else "subject_last" if token == last else "subject"
        elif token in word:
            role = "object"
        else:
            role = "between" if word and token < min(word) else "after"
        roles.append(role)
    return tuple(roles)
