"""Judges of a text: deterministic functions from a text to a number from 0 to 1, without a model, a word list or a download.

A degenerate text (empty, or the same words again and again) is worth 0 under every judge.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence

from ontogeny.errors import BadInput

TextJudge = Callable[[str], float]
"""Maps a text to a number from 0 (the rule is broken) to 1 (it is kept)."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?]*[^.!?\s][^.!?]*[.!?]*")
_LONGEST_RUN = 8
"""A character that stands so often in a row makes a text degenerate."""
_REPEATED = 4
"""A phrase of one to four words that follows itself so often makes a text degenerate."""
_FEW_WORDS = 8
"""Below so many words a text is not judged by its number of different words."""
_DISTINCT_SHARE = 0.3


def words_of(text: str) -> list[str]:
    """The words of a text, numbers included."""
    return _WORD.findall(text)


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, with their marks; the last may lack one."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text)]


def degenerate_reason(text: str) -> str | None:
    """Why a text is degenerate: it has no words, repeats a phrase, a character or few words; None if it is not."""
    words = [word.lower() for word in words_of(text)]
    if not words:
        return "no words"
    if re.search(rf"(\S)\1{{{_LONGEST_RUN - 1}}}", text):
        return "one character again and again"
    for size in range(1, 5):
        run = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            if run >= size * (_REPEATED - 1):
                return "one phrase again and again"
    if len(words) >= _FEW_WORDS and len(set(words)) < _DISTINCT_SHARE * len(words):
        return "few different words"
    return None


def judged(judge: TextJudge, text: str) -> float:
    """The verdict of a judge, 0 for a degenerate text.

    Raises:
        BadInput: the judge returns no number from 0 to 1.
    """
    if degenerate_reason(text) is not None:
        return 0.0
    value = float(judge(text))
    if not 0 <= value <= 1:
        raise BadInput(f"a judge must return a number from 0 to 1, got {value} for {text[:60]!r}: correct the judge.")
    return value


def contains(*words: str, least: int = 1) -> TextJudge:
    """Share of `least` different words or phrases that the text contains, whole and in any case.

    Raises:
        BadInput: no words, or more asked for than there are.
    """
    wanted = [word.strip() for word in words if word.strip()]
    if not 1 <= least <= len(wanted):
        raise BadInput(f"`words` must hold at least {max(least, 1)}, got {len(wanted)}: name more.")
    patterns = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in wanted]
    return lambda text: min(1.0, sum(bool(pattern.search(text)) for pattern in patterns) / least)


def avoids(*words: str) -> TextJudge:
    """1 without any of the words."""
    inside = contains(*words)
    return lambda text: float(inside(text) == 0)


def avoids_letter(letter: str) -> TextJudge:
    """Share of words without a letter."""
    return lambda text: _share(words_of(text), lambda word: letter not in word.lower())


def begins_with(start: str) -> TextJudge:
    """1 for a text that begins with the words or letters, in any case; marks before them do not count."""
    return lambda text: float(re.sub(r"^[\W_]+", "", text).lower().startswith(start.lower()))


def ends_with(end: str) -> TextJudge:
    """1 for a text that ends with the words or marks, in any case; a full stop after words does not count."""
    bare = end.lower().rstrip(".")
    return lambda text: float(text.strip().lower().rstrip("." if bare[-1:].isalnum() else "").endswith(bare))


def letters_in_case(case: str) -> TextJudge:
    """Share of the letters that are of a case, `upper` or `lower`."""
    is_of = str.isupper if case == "upper" else str.islower
    return lambda text: _share([c for c in text if c.isupper() or c.islower()], is_of)


def words_capitalised(text: str) -> float:
    """Share of words whose first letter is a capital and whose others are not."""
    return _share([word for word in words_of(text) if word[0].isalpha()], lambda word: word == word.capitalize())


def sentences_end_with(mark: str) -> TextJudge:
    """Share of sentences that end with a mark."""
    return lambda text: _share(sentences_of(text), lambda sentence: sentence.endswith(mark))


def sentences_of_at_most(count: int) -> TextJudge:
    """Share of sentences of at most so many words."""
    return lambda text: _share(sentences_of(text), lambda sentence: len(words_of(sentence)) <= count)


def at_most_words(count: int) -> TextJudge:
    """1 up to so many words, then their number over that of the text."""
    return lambda text: min(1.0, count / max(len(words_of(text)), 1))


def about_words(count: int) -> TextJudge:
    """1 at exactly so many words, falling to 0 at none and at twice as many."""
    return lambda text: max(0.0, 1 - abs(len(words_of(text)) - count) / count)


def is_one_sentence(text: str) -> float:
    """One over the number of sentences."""
    return 1 / max(len(sentences_of(text)), 1)


def is_json_object(text: str) -> float:
    """1 for a JSON object and nothing else; a fence of code around it does not count."""
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        return float(isinstance(json.loads(bare), dict))
    except (ValueError, RecursionError):
        return 0.0


def lines_begin_with(pattern: str) -> TextJudge:
    """Share of lines that match a pattern at their start; 0 for fewer than two lines."""
    start = re.compile(pattern)

    def judge(text: str) -> float:
        lines = [line for line in text.splitlines() if line.strip()]
        return _share(lines, lambda line: bool(start.match(line.strip()))) if len(lines) > 1 else 0.0

    return judge


def is_numbered_list(text: str) -> float:
    """Share of lines that begin with their own number; 0 for fewer than two lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    right = sum(line.startswith((f"{i}.", f"{i})")) for i, line in enumerate(lines, 1))
    return right / len(lines) if len(lines) > 1 else 0.0


def is_enclosed(opening: str, closing: str) -> TextJudge:
    """1 for a text inside a pair of marks; a full stop after it does not count."""
    return lambda text: float(text.strip().startswith(opening) and text.strip().rstrip(".").endswith(closing))


def is_choice(letters: str) -> TextJudge:
    """1 for one of the letters alone, with or without brackets and a full stop."""
    return lambda text: float(text.strip().strip("().[] ").upper() in set(letters))


def is_alliterating(text: str) -> float:
    """Share of words that begin with the most common first letter; 0 for a single word."""
    firsts = Counter(word[0].lower() for word in words_of(text))
    return max(firsts.values()) / firsts.total() if firsts.total() > 1 else 0.0


def words_joined_by(mark: str) -> TextJudge:
    """Share of the gaps between words that are the mark alone; 0 for a single word."""

    def judge(text: str) -> float:
        gaps = [gap.strip() for gap in re.split(_WORD, text)[1:-1]]
        return _share(gaps, lambda gap: gap == mark)

    return judge


def has_paragraphs(count: int) -> TextJudge:
    """1 for a text of exactly so many paragraphs."""
    return lambda text: float(len([part for part in re.split(r"\n\s*\n", text) if part.strip()]) == count)


def language_share(function_words: Sequence[str]) -> TextJudge:
    """Share of a language's frequent words among the words, as a share of one in five, where a text of that language lies."""
    known = {word.lower() for word in function_words}
    return lambda text: min(1.0, 5 * _share(words_of(text), lambda word: word.lower() in known))


def _share(parts: Sequence[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, parts)) / len(parts) if parts else 0.0
