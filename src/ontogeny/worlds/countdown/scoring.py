"""Exact scores of generated texts, all rows at once: is the answer right, are the calculations, are the verdicts?

The answer after the last `answer` counts. Its value is a fraction, as integers; a text of another form than `a + b - c` has no value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds.countdown.attempts import Ints, reduces_left_first
from ontogeny.worlds.countdown.texts import ATTEMPT_TOKENS, PROMPT_TOKENS, RESULT, TARGET, VERDICT

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CountdownScores:
    """Scores of texts."""

    answered: Mask
    """Whether there is an answer."""
    right: Mask
    """Whether it uses each number once and reaches the target."""
    distance: NDArray[np.float64]
    """Of its value from the target; infinite without a value, or if it does not use each number once."""
    in_form: Mask
    """Whether the text is attempts with verdicts, then an answer or the end."""
    attempts: Ints
    """Number of attempts in form."""
    calculated: NDArray[np.float64]
    """Share of these whose stated result is right; NaN without attempts."""
    says_works: Ints
    """Number of verdicts `this works`."""
    works_wrongly: Ints
    """Number of these whose stated result is not the target."""
    misses: Ints
    """Number of verdicts `not` whose stated result is the target."""


def rational_values(numbers: Ints, operators: Ints) -> tuple[Ints, Ints]:
    """Numerator and denominator of `a o b p c`; the denominator is 0 after a division by zero."""
    left = reduces_left_first(operators)
    a, b, c = ((numbers[..., i], np.ones_like(numbers[..., i])) for i in range(3))
    first, second = operators[..., 0], operators[..., 1]
    by_left = _operate(second, _operate(first, a, b), c)
    by_right = _operate(first, a, _operate(second, b, c))
    numerator, denominator = (np.where(left, x, y) for x, y in zip(by_left, by_right, strict=True))
    return numerator, denominator


def _operate(operator: Ints, left: tuple[Ints, Ints], right: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    (a, b), (c, d) = left, right
    known = (b != 0) & (d != 0)
    numerator = np.choose(operator, [a * d + c * b, a * d - c * b, a * c, a * d])
    denominator = np.choose(operator, [b * d, b * d, b * d, b * c])
    return np.where(known, numerator, 0), np.where(known, denominator, 0)


def score_texts(vocabulary: dict[str, int], ids: Ints, *, end: int) -> CountdownScores:
    """Scores of texts that begin with a prompt.

    Args:
        ids: [text, token]; after `end` nothing counts.
        end: Token that ends a text.

    Raises:
        BadInput: rows without a prompt.
    """
    names = ("numbers", "target", ":")
    marks = tuple(vocabulary[name] for name in names)
    if ids.ndim != 2 or ids.shape[1] < PROMPT_TOKENS or not (ids[:, (1, 5, 7)] == np.array(marks)).all():
        raise BadInput(
            f"`ids` must be rows that begin with `<s> numbers a b c target t :`, got the shape {ids.shape}: keep the prompts."
        )
    zero = vocabulary["0"]
    ended = np.cumsum(ids == end, axis=1) > 0
    text = np.pad(np.where(ended, end, ids), ((0, 0), (0, ATTEMPT_TOKENS)), constant_values=end)
    given, target = text[:, 2:5] - zero, text[:, TARGET] - zero
    answered, right, distance = _answers(vocabulary, text, given, target, end)
    rows, width = text.shape
    at, running = np.full(rows, PROMPT_TOKENS), np.ones(rows, dtype=bool)
    attempts, calculated, works, wrongly, misses = (np.zeros(rows, dtype=np.int64) for _ in range(5))
    for _ in range((width - PROMPT_TOKENS) // ATTEMPT_TOKENS):
        places = np.minimum(at[:, None] + np.arange(ATTEMPT_TOKENS), width - 1)
        part = np.take_along_axis(text, places, 1)
        form, says = _attempt_form(vocabulary, part)
        running &= form
        stated = part[:, RESULT] - zero
        numerator, denominator = _values_of(vocabulary, part[:, :5])
        attempts += running
        calculated += running & (denominator != 0) & (numerator == stated * denominator)
        works += running & says
        wrongly += running & says & (stated != target)
        misses += running & ~says & (stated == target)
        at = np.where(running, at + ATTEMPT_TOKENS, at)
    after = np.take_along_axis(text, np.minimum(at, width - 1)[:, None], 1)[:, 0]
    ends = np.take_along_axis(text, np.minimum(at + 6, width - 1)[:, None], 1)[:, 0] == end
    answer_form = (after == vocabulary["answer"]) & ends
    in_form = (attempts > 0) & ((after == end) & ended.any(1) | answer_form)
    share = np.divide(calculated, attempts, out=np.full(rows, np.nan), where=attempts > 0)
    return CountdownScores(answered, right, distance, in_form, attempts, share, works, wrongly, misses)


def reward_texts(
    scores: CountdownScores, target: Ints, *, answered: float = 0.1, near: float = 0.1
) -> NDArray[np.float64]:
    """Reward of each text: 1 for a right answer, `answered` for another one, and up to `near` more for a value close to the target.

    Partial credit gives groups without a right answer a gradient. It is small, since a wrong answer should not pay.

    Raises:
        BadInput: credits below 0, or that reach 1 together.
    """
    if not (answered >= 0 and near >= 0 and answered + near < 1):
        raise BadInput(f"`answered` and `near` must be at least 0 and below 1 together, got {answered} and {near}.")
    closeness = np.clip(
        1 - np.where(np.isfinite(scores.distance), scores.distance, np.inf) / np.maximum(target, 1), 0, 1
    )
    return np.where(scores.right, 1.0, np.where(scores.answered, answered + near * closeness, 0.0))


def _answers(
    vocabulary: dict[str, int], text: Ints, given: Ints, target: Ints, end: int
) -> tuple[Mask, Mask, NDArray[np.float64]]:
    """Whether there is an answer, whether it is right, and its distance from the target."""
    named = text == vocabulary["answer"]
    named[:, :PROMPT_TOKENS] = False
    answered = named.any(1)
    last = text.shape[1] - 1 - named[:, ::-1].argmax(1)
    places = np.minimum(last[:, None] + np.arange(1, 7), text.shape[1] - 1)
    part = np.take_along_axis(text, places, 1)
    numerator, denominator = _values_of(vocabulary, part[:, :5])
    used = np.sort(part[:, :5:2] - vocabulary["0"], 1) == np.sort(given, 1)
    whole = answered & (denominator != 0) & used.all(1) & (part[:, 5] == end)
    right = whole & (numerator == target * denominator)
    value = np.divide(numerator, denominator, out=np.full(len(text), np.inf), where=whole)
    return answered, right, np.where(whole, np.abs(value - target), np.inf)


def _values_of(vocabulary: dict[str, int], part: Ints) -> tuple[Ints, Ints]:
    """Values of five tokens `a o b p c`; the denominator is 0 if they are none."""
    plus, zero = vocabulary["+"], vocabulary["0"]
    operators, numbers = part[:, (1, 3)] - plus, part[:, (0, 2, 4)] - zero
    formed = ((operators >= 0) & (operators < 4)).all(1) & (numbers >= 0).all(1)
    numerator, denominator = rational_values(np.maximum(numbers, 0), np.clip(operators, 0, 3))
    return numerator, np.where(formed, denominator, 0)


def _attempt_form(vocabulary: dict[str, int], part: Ints) -> tuple[Mask, Mask]:
    """Whether fifteen tokens are an attempt with a verdict, and whether this is `this works`."""
    zero, plus = vocabulary["0"], vocabulary["+"]
    numbers = (part[:, (0, 2, 4, 6, 8, RESULT)] >= zero).all(1)
    operators = ((part[:, (1, 3, 7)] >= plus) & (part[:, (1, 3, 7)] < plus + 4)).all(1)
    fixed = (part[:, (5, 9, VERDICT, 14)] == np.array([vocabulary[w] for w in ("=", "=", "(", ")")])).all(1)
    says = (part[:, 12] == vocabulary["this"]) & (part[:, 13] == vocabulary["works"])
    denies = (part[:, 12] == vocabulary["not"]) & (part[:, 13] >= zero)
    return numbers & operators & fixed & (says | denies), says
