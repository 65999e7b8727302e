"""Prompt pairs that align token by token and differ in one place, mined from labelled statements (arXiv:2504.02904 section 3).

Pairings: `recall` pairs two questions of one pattern about different subjects, each answered by its own last word. `same_object` (the
paper's) pairs a true and a false statement with the same last word, both asked whether they are true. `one_span` pairs a true and a
false statement that differ in one span of equally many tokens.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.positions import Encoding, tokens_in_span
from ontogeny.data.tokenization import encode_texts
from ontogeny.data.verdict_question import VerdictQuestion
from ontogeny.errors import BadInput, unknown_name
from ontogeny.patching.pair_mining import CompletionPrompt, find_partners

PairingMode = Literal["auto", "recall", "same_object", "one_span"]


def parse_pairing(name: str) -> PairingMode:
    """The pairing of this name.

    Raises:
        BadInput: unknown name.
    """
    if name not in get_args(PairingMode):
        raise unknown_name("pairing", name, get_args(PairingMode))
    return cast(PairingMode, name)


@dataclass(frozen=True)
class PairText:
    """Two prompts and their answers as text, which can be aligned under another tokenizer."""

    clean: CompletionPrompt
    corrupt: CompletionPrompt
    right: str
    wrong: str


@dataclass(frozen=True)
class PromptPair:
    """Two prompts with equally many tokens."""

    drawn: PairText
    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    right: int
    """First token of the clean prompt's answer that differs from the corrupt prompt's."""
    wrong: int
    roles: tuple[str, ...]
    """Role of each token: before, subject, subject_last, between, object, after, last."""


@dataclass(frozen=True)
class MinedPairs:
    """Pairs mined from one concept."""

    concept: str
    pairing: str
    pairs: tuple[PromptPair, ...]
    tried: int
    """Number of candidate prompts."""
    dropped: Mapping[str, int]
    """Number of dropped pairs by reason."""

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
    question: VerdictQuestion | None = None,
    limit: int | None = 50,
    seed: int = 0,
) -> MinedPairs:
    """Up to `limit` pairs of a concept's answers or statements; `auto` takes the first pairing that gives any.

    Args:
        question: Asks whether a statement is true. Its shots are the same in all prompts, so they are computed once.

    Raises:
        BadInput: no pairs align.
    """
    orders = get_args(PairingMode)[1:] if parse_pairing(pairing) == "auto" else (pairing,)
    reasons = []
    for name in orders:
        mined = _mine_with_pairing(concept, tokenizer, name, question or VerdictQuestion(), limit, seed)
        if len(mined):
            return mined
        why = ", ".join(mined.dropped) or "no two of one length differ as they should"
        reasons.append(f"{name}: {mined.tried} prompts, {why}")
    raise BadInput(
        f"no pairs of {concept.name} align ({'; '.join(reasons)}). Give more statements of one pattern, or prompts with answers."
    )


def _mine_with_pairing(
    concept: Concept, tokenizer: Any, pairing: str, question: VerdictQuestion, limit: int | None, seed: int
) -> MinedPairs:
    clean, corrupt = _prompts(concept, pairing, question, seed)
    partners = find_partners(tokenizer, clean, corrupt, pairing, seed) if clean and corrupt else []
    dropped: Counter[str] = Counter()
    pairs: list[PromptPair] = []
    for i, j in partners:
        if limit is not None and len(pairs) == limit:
            break
        answers = (clean[i].answer, corrupt[j].answer) if pairing == "recall" else (question.true, question.false)
        pair = align_pair(tokenizer, PairText(clean[i], corrupt[j], *answers), pairing)
        if isinstance(pair, str):
            dropped[pair] += 1
        else:
            pairs.append(pair)
    tried = len(clean) if clean is corrupt else len(clean) + len(corrupt)
    return MinedPairs(concept.name, pairing, tuple(pairs), tried, dropped)


def realign_pairs(mined: MinedPairs, tokenizer: Any) -> MinedPairs:
    """The pairs that align under another tokenizer, too."""
    aligned = [align_pair(tokenizer, pair.drawn, mined.pairing) for pair in mined.pairs]
    pairs = tuple(pair for pair in aligned if isinstance(pair, PromptPair))
    dropped = Counter(pair for pair in aligned if isinstance(pair, str))
    return MinedPairs(mined.concept, mined.pairing, pairs, mined.tried, dropped)


def _prompts(
    concept: Concept, pairing: str, question: VerdictQuestion, seed: int
) -> tuple[list[CompletionPrompt], list[CompletionPrompt]]:
    """Clean and corrupt candidates."""
    if pairing == "recall":
        both = [CompletionPrompt(a.prompt, a.right, a.group) for a in concept.answers] or _cloze_prompts(concept)
        return both, both
    if concept.kind != "binary":
        return [], []
    true, false = ([e for e in concept.examples if bool(e.target) is label] for label in (True, False))
    order = random.Random(seed)
    shots = [e for label in (true, false) for e in order.sample(label, min(question.shots // 2, len(label)))]
    order.shuffle(shots)
    head = "".join(f"{e.text}{question.suffix}{question.true if e.target else question.false}\n" for e in shots)
    clean, corrupt = ([_question_prompt(e, head, question) for e in label if e not in shots] for label in (true, false))
    return clean, corrupt


def _question_prompt(example: Example, head: str, question: VerdictQuestion) -> CompletionPrompt:
    word = _last_word(example.text)
    place = None if word is None else (len(head) + word[0], len(head) + word[1])
    return CompletionPrompt(head + example.text + question.suffix, question.true, example.group, place)


def _cloze_prompts(concept: Concept) -> list[CompletionPrompt]:
    """True statements without their last word, which is the answer."""
    prompts = []
    for example in concept.examples if concept.kind == "binary" else ():
        word = _last_word(example.text)
        if example.target and word is not None and (start := example.text[: word[0]].rstrip()):
            prompts.append(CompletionPrompt(start, example.text[len(start) : word[1]], example.group))
    return prompts


def _last_word(text: str) -> tuple[int, int] | None:
    words = list(re.finditer(r"\w[\w'’-]*", text))
    return words[-1].span() if words else None


def align_pair(tokenizer: Any, drawn: PairText, pairing: str) -> PromptPair | str:
    """The pair in tokens, or the reason why it does not align."""
    texts = [p.text + answer for p in (drawn.clean, drawn.corrupt) for answer in (drawn.right, drawn.wrong)]
    a, b, c, d = encode_texts(tokenizer, texts, [None] * 4)
    first, second = _split_at_answer(a, b, len(drawn.clean.text)), _split_at_answer(c, d, len(drawn.corrupt.text))
    if first is None or second is None:
        return "answers that one token cannot tell apart"
    (clean, answers), (corrupt, corrupt_answers) = first, second
    if answers != corrupt_answers:
        return "answers cut into other tokens"
    if len(clean) != len(corrupt):
        return "prompts of different lengths in tokens"
    differs = [x != y for x, y in zip(clean, corrupt, strict=True)]
    if not any(differs) or differs[-1]:
        return "prompts that differ in their last token, or nowhere"
    roles = _token_roles(a, len(clean), differs, drawn.clean.object, pairing)
    return PromptPair(drawn, clean, corrupt, *answers, roles)


def _split_at_answer(right: Encoding, wrong: Encoding, prompt: int) -> tuple[tuple[int, ...], tuple[int, int]] | None:
    """The tokens before the first one in which the two answers differ, and the two tokens that differ."""
    a, b = right.ids.tolist(), wrong.ids.tolist()
    end = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    # A token that holds the end of the prompt and the start of the answer would leave the prompt incomplete.
    if not end or int(right.offsets[end - 1, 1]) < len(right.text[:prompt].rstrip()) or bool(right.special[end]):
        return None
    return tuple(a[:end]), (a[end], b[end])


def _token_roles(
    encoding: Encoding, length: int, differs: Sequence[bool], object: tuple[int, int] | None, pairing: str
) -> tuple[str, ...]:
    first, last = differs.index(True), length - 1 - list(reversed(differs)).index(True)
    word = set() if object is None else set(tokens_in_span(encoding.offsets, *object).nonzero()[:, 0].tolist())
    # A one-span pair that differs in its last word differs in the object; otherwise, the subject differs.
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
