"""Arithmetic expressions: an exact parser of whole numbers, + - * / and parentheses.

Values are fractions, and nothing is evaluated as code.
"""

from dataclasses import dataclass
from fractions import Fraction

from ontogeny.errors import BadInput

OPERATORS = ("+", "-", "*", "/")
_LONGEST = 1000
"""Characters of an expression."""
_MOST_DIGITS = 12
_DIGITS = "0123456789"
_NEGATE, _OPEN = "negate", "("
_STRENGTH = {_OPEN: 0, "+": 1, "-": 1, "*": 2, "/": 2, _NEGATE: 3}


@dataclass(frozen=True)
class Expression:
    """A parsed expression."""

    value: Fraction
    numbers: tuple[int, ...]
    """In the order of the text."""


def parse_expression(text: str) -> Expression:
    """Parse and evaluate an expression, with the usual precedence and a minus before an operand.

    Two stacks and no recursion, so that the depth of parentheses is bounded by the length alone.

    Raises:
        BadInput: an unknown character, a missing operand, operator or parenthesis, a division by zero, or a text that is too long.
    """
    if len(text) > _LONGEST:
        raise BadInput(f"an expression must have at most {_LONGEST} characters, got {len(text)}: shorten it.")
    values: list[Fraction] = []
    pending: list[tuple[str, int]] = []
    numbers: list[int] = []
    place, operand_due = 0, True
    while place < len(text):
        character, start = text[place], place
        place += 1
        if character in " \t":
            continue
        if character in _DIGITS:
            while place < len(text) and text[place] in _DIGITS:
                place += 1
            if not operand_due:
                raise _invalid(text, start, "an operator")
            if place - start > _MOST_DIGITS:
                raise BadInput(
                    f"a number must have at most {_MOST_DIGITS} digits, got {place - start}: use a smaller one."
                )
            numbers.append(int(text[start:place]))
            values.append(Fraction(numbers[-1]))
            operand_due = False
        elif character == "(" or (character == "-" and operand_due):
            if not operand_due:
                raise _invalid(text, start, "an operator")
            pending.append((_NEGATE if character == "-" else _OPEN, start))
        elif character == ")":
            if operand_due:
                raise _invalid(text, start, "a number")
            _reduce(text, values, pending, 1)
            if not pending:
                raise _invalid(text, start, "an operator")
            pending.pop()
        elif character in OPERATORS:
            if operand_due:
                raise _invalid(text, start, "a number")
            _reduce(text, values, pending, _STRENGTH[character])
            pending.append((character, start))
            operand_due = True
        else:
            raise _invalid(text, start, "a number, + - * / or a parenthesis")
    if operand_due:
        raise _invalid(text, len(text), "a number")
    _reduce(text, values, pending, 1)
    if pending:
        raise _invalid(text, len(text), "a closing parenthesis")
    return Expression(values[0], tuple(numbers))


def _reduce(text: str, values: list[Fraction], pending: list[tuple[str, int]], strength: int) -> None:
    """Apply the pending operators that bind at least as strongly."""
    while pending and _STRENGTH[pending[-1][0]] >= strength:
        operator, place = pending.pop()
        right = values.pop()
        if operator == _NEGATE:
            values.append(-right)
            continue
        left = values.pop()
        if operator == "/" and right == 0:
            raise BadInput(
                f"an expression must not divide by zero, got {_shown(text)} (character {place + 1}): change the divisor."
            )
        values.append(_apply(operator, left, right))


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    return left / right


def _invalid(text: str, place: int, due: str) -> BadInput:
    there = repr(text[place]) if place < len(text) else "its end"
    return BadInput(
        f"an expression must have {due} at character {place + 1}, got {there} in {_shown(text)}: correct it."
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
