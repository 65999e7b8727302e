"""Texts of CountDown: a puzzle, attempts each with a verdict, and the answer; and texts that end before a verdict.

`<s> numbers 7 6 5 target 37 : 7 + 6 - 5 = 13 - 5 = 8 ( not 37 ) 7 + 6 * 5 = 7 + 30 = 37 ( this works ) answer 7 + 6 * 5 </s>`
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._vocabulary import BOS, EOS, PAD
from ontogeny.worlds.countdown.attempts import Attempts, Ints, Puzzles
from ontogeny.worlds.countdown.expressions import OPERATORS

WORDS = ("numbers", "target", ":", *OPERATORS, "=", "(", ")", "this", "works", "not", "answer")
PROMPT_TOKENS = 8
ATTEMPT_TOKENS, EXPRESSION_TOKENS = 15, 5
"""Tokens of an attempt, and of the expression that it begins with."""
RESULT, VERDICT = 10, 11
"""Places of an attempt's result and of the parenthesis before its verdict, from its first token."""
TARGET, TARGET_AGAIN = 6, 13
"""Place of the target in the prompt, and in the verdict `( not 37 )` from an attempt's first token."""
_ANSWER_TOKENS = 7


@dataclass(frozen=True, eq=False)
class CountdownTexts:
    """Texts as rows of token ids, padded on the right."""

    ids: Ints
    lengths: Ints
    puzzles: Ints
    """Index of each puzzle."""
    attempts: Ints
    """[text, place]: the attempts; -1 after the last one."""
    solved: NDArray[np.bool_]
    """Whether the last attempt reaches the target."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True after the prompt."""
        places = np.arange(self.ids.shape[1])
        return (places >= PROMPT_TOKENS) & (places < self.lengths[:, None])


@dataclass(frozen=True, eq=False)
class VerdictPrefixes:
    """Texts that end before a verdict. Four form a group: two results crossed with two targets, all else equal.

    So neither the result, nor the target, nor the place predicts the verdict.
    """

    ids: Ints
    """All of one length."""
    valid: NDArray[np.bool_]
    group: Ints
    place: int
    """Number of attempts before the one to be judged."""


def longest_text(attempts: int) -> int:
    """Tokens of a text with this many attempts and an answer."""
    return PROMPT_TOKENS + attempts * ATTEMPT_TOKENS + _ANSWER_TOKENS


def write_prompts(
    vocabulary: dict[str, int], numbers: Ints, target: Ints, rng: np.random.Generator | None = None
) -> Ints:
    """Prompts of puzzles, `[puzzle, 8]`; the numbers in random order if there is a generator."""
    ids = np.empty((len(numbers), PROMPT_TOKENS), dtype=np.int64)
    ids[:, 0], ids[:, 1], ids[:, 5], ids[:, 7] = (vocabulary[word] for word in (BOS, "numbers", "target", ":"))
    ids[:, 2:5] = vocabulary["0"] + (numbers if rng is None else rng.permuted(numbers, axis=1))
    ids[:, TARGET] = vocabulary["0"] + target
    return ids


def write_attempts(vocabulary: dict[str, int], table: Attempts, chosen: Ints, target: Ints) -> Ints:
    """Attempts with their verdicts, `[text, 15]`."""
    zero, equals = vocabulary["0"], vocabulary["="]
    operator = np.array([vocabulary[word] for word in OPERATORS])
    a, b, c = (zero + table.numbers[chosen, i] for i in range(3))
    first, second = (operator[table.operators[chosen, i]] for i in range(2))
    middle, left = zero + table.middle[chosen], table.left_first[chosen]
    value = table.value[chosen]
    works = value == target
    ids = np.empty((len(chosen), ATTEMPT_TOKENS), dtype=np.int64)
    for place, column in enumerate((a, first, b, second, c)):
        ids[:, place] = column
    ids[:, 5] = ids[:, 9] = equals
    ids[:, 6], ids[:, 7], ids[:, 8] = (
        np.where(left, middle, a),
        np.where(left, second, first),
        np.where(left, c, middle),
    )
    ids[:, RESULT] = zero + value
    ids[:, VERDICT] = vocabulary["("]
    ids[:, 12] = np.where(works, vocabulary["this"], vocabulary["not"])
    ids[:, 13] = np.where(works, vocabulary["works"], zero + target)
    ids[:, 14] = vocabulary[")"]
    return ids


def write_texts(
    vocabulary: dict[str, int],
    table: Attempts,
    puzzles: Puzzles,
    chosen: Ints,
    rng: np.random.Generator,
    *,
    attempts: int,
    hit: float,
) -> CountdownTexts:
    """One text of each chosen puzzle: attempts at random until one works, at most `attempts`; without one the text ends unanswered.

    Each attempt works with the probability `hit`, whatever its place, so that the place says nothing about the verdict.
    """
    rows = len(chosen)
    target = puzzles.target[chosen]
    hits = rng.random((rows, attempts)) < hit
    solved = np.logical_or.reduce(hits, axis=1)
    last = np.where(solved, hits.argmax(1), attempts - 1)
    tried = draw_wrong_attempts(table, puzzles.set[chosen], target[:, None], attempts, rng)
    right = puzzles.solutions[puzzles.start[chosen] + rng.integers(0, puzzles.count[chosen])]
    tried[np.arange(rows)[solved], last[solved]] = right[solved]
    ids = np.full((rows, longest_text(attempts)), vocabulary[PAD])
    ids[:, :PROMPT_TOKENS] = write_prompts(vocabulary, puzzles.numbers[chosen], target, rng)
    for place in range(attempts):
        own = slice(PROMPT_TOKENS + place * ATTEMPT_TOKENS, PROMPT_TOKENS + (place + 1) * ATTEMPT_TOKENS)
        written = place <= last
        ids[written, own] = write_attempts(vocabulary, table, tried[written, place], target[written])
    end = PROMPT_TOKENS + (last + 1) * ATTEMPT_TOKENS
    final = write_attempts(vocabulary, table, tried[np.arange(rows), last], target)[:, :5]
    columns = end[solved][:, None] + np.arange(6)
    ids[np.nonzero(solved)[0][:, None], columns] = np.concatenate(
        [np.full((int(solved.sum()), 1), vocabulary["answer"]), final[solved]], axis=1
    )
    lengths = end + np.where(solved, _ANSWER_TOKENS, 1)
    ids[np.arange(rows), lengths - 1] = vocabulary[EOS]
    return CountdownTexts(ids, lengths, chosen, np.where(np.arange(attempts) <= last[:, None], tried, -1), solved)


def draw_wrong_attempts(table: Attempts, sets: Ints, avoid: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Different random attempts of each set, `[text, count]`, none of which has one of the values to avoid.

    Raises:
        BadInput: a set has too few such attempts.
    """
    drawn = np.full((len(sets), count), -1)
    for place in range(count):
        waiting = np.arange(len(sets))
        for _ in range(400):
            picked = table.members[table.start[sets[waiting]] + rng.integers(0, table.count[sets[waiting]])]
            good = (table.value[picked][:, None] != avoid[waiting]).all(1)
            good &= (picked[:, None] != drawn[waiting]).all(1)
            drawn[waiting[good], place] = picked[good]
            waiting = waiting[~good]
            if not len(waiting):
                break
        else:
            numbers = table.sets[sets[waiting[0]]].tolist()
            raise BadInput(f"the numbers {numbers} must have {count} other attempts: use fewer attempts.")
    return drawn


def write_verdict_prefixes(
    vocabulary: dict[str, int], table: Attempts, puzzles: Puzzles, rng: np.random.Generator, *, groups: int, place: int
) -> VerdictPrefixes:
    """Groups of four prefixes: two puzzles of one set of numbers, and an attempt that solves the one, not the other, for each.

    Args:
        place: Number of attempts before the one to be judged; none of them solves either puzzle.

    Raises:
        BadInput: no set of numbers has two puzzles.
    """
    starts = np.flatnonzero(np.r_[True, puzzles.set[1:] != puzzles.set[:-1]])
    sizes = np.diff(np.r_[starts, len(puzzles)])
    if not (sizes > 1).any():
        raise BadInput("a set of numbers must have two puzzles, and none has: raise `targets`.")
    own = rng.choice(np.flatnonzero(sizes > 1), groups)
    one = rng.integers(0, sizes[own])
    two = (one + rng.integers(1, sizes[own])) % sizes[own]
    first, second = starts[own] + one, starts[own] + two
    targets = np.stack([puzzles.target[first], puzzles.target[second]], 1)
    earlier = draw_wrong_attempts(table, puzzles.set[first], targets, place, rng)
    results = np.stack(
        [puzzles.solutions[puzzles.start[p] + rng.integers(0, puzzles.count[p])] for p in (first, second)], 1
    )
    order = rng.permuted(puzzles.numbers[first], axis=1)
    cells = []
    for t in range(2):
        for r in range(2):
            target = targets[:, t]
            parts = [write_prompts(vocabulary, order, target)]
            parts += [write_attempts(vocabulary, table, earlier[:, i], target) for i in range(place)]
            parts.append(write_attempts(vocabulary, table, results[:, r], target)[:, : VERDICT + 1])
            cells.append(np.concatenate(parts, 1))
    ids = np.stack(cells, 1).reshape(4 * groups, -1)
    return VerdictPrefixes(ids, np.tile([True, False, False, True], groups), np.repeat(np.arange(groups), 4), place)
