"""Attempts at a CountDown puzzle: every expression of three numbers with two operators and whole values, as arrays.

An attempt is written with its one intermediate step, as in `7 + 6 * 5 = 7 + 30 = 37`.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput

Ints = NDArray[np.int64]

_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE = range(4)
"""Operators by their index in `OPERATORS`."""


@dataclass(frozen=True, eq=False)
class Attempts:
    """All attempts of a world, and for each set of numbers those that use it."""

    numbers: Ints
    """[attempt, 3], in the order of the expression."""
    operators: Ints
    """[attempt, 2], indices into `OPERATORS`."""
    middle: Ints
    """Value of the part that is computed first."""
    left_first: NDArray[np.bool_]
    """Whether this is the part on the left."""
    value: Ints
    sets: Ints
    """[set, 3]: numbers in ascending order."""
    members: Ints
    """Attempts of all sets, one after the other."""
    start: Ints
    """Place of the first attempt of each set in `members`."""
    count: Ints
    """Number of attempts of each set."""


@dataclass(frozen=True, eq=False)
class Puzzles:
    """Puzzles that have a solution."""

    numbers: Ints
    """[puzzle, 3], in ascending order."""
    target: Ints
    set: Ints
    """Index into `Attempts.sets`."""
    solutions: Ints
    """Attempts that solve a puzzle, one puzzle after the other."""
    start: Ints
    count: Ints

    def __len__(self) -> int:
        return len(self.target)


def apply_operators(operator: Ints, left: Ints, right: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Values of operations on whole numbers, and whether each is whole; 0 where it is not."""
    whole = (operator != _DIVIDE) | ((right != 0) & (left % np.where(right == 0, 1, right) == 0))
    quotient = left // np.where(right == 0, 1, right)
    value = np.select(
        [operator == _ADD, operator == _SUBTRACT, operator == _MULTIPLY],
        [left + right, left - right, left * right],
        quotient,
    )
    return np.where(whole, value, 0), whole


def reduces_left_first(operators: Ints) -> NDArray[np.bool_]:
    """Whether the left operator of two is applied first: not where the right one alone is a product or a quotient."""
    strong = operators >= _MULTIPLY
    return strong[..., 0] | ~strong[..., 1]


def evaluate_attempts(numbers: Ints, operators: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """First value, final value, and whether both are whole, of expressions `a o b p c`."""
    a, b, c = (numbers[..., i] for i in range(3))
    left = reduces_left_first(operators)
    first = np.where(left, operators[..., 0], operators[..., 1])
    middle, whole = apply_operators(first, np.where(left, a, b), np.where(left, b, c))
    second = np.where(left, operators[..., 1], operators[..., 0])
    value, also = apply_operators(second, np.where(left, middle, a), np.where(left, c, middle))
    return middle, value, whole & also


@functools.cache
def all_attempts(largest: int, most: int) -> Attempts:
    """Attempts with numbers from 1 to `largest`, all of whose values lie between 0 and `most`."""
    grid = np.indices((largest,) * 3).reshape(3, -1).T + 1
    parts = []
    for pair in itertools.product(range(4), repeat=2):  # one at a time, since large numbers make many
        operators = np.broadcast_to(np.array(pair), (len(grid), 2))
        middle, value, whole = evaluate_attempts(grid, operators)
        valid = whole & (middle >= 0) & (middle <= most) & (value >= 0) & (value <= most)
        parts.append((np.flatnonzero(valid), operators[valid], middle[valid], value[valid]))
    place, operators, middle, value = (np.concatenate(own) for own in zip(*parts, strict=True))
    order = np.argsort(place, kind="stable")  # by numbers, then by operators
    numbers, operators, middle, value = grid[place[order]], operators[order], middle[order], value[order]
    ascending = np.sort(numbers, 1)
    keys, first, owner = np.unique(
        ascending @ np.array([(largest + 1) ** 2, largest + 1, 1]), return_index=True, return_inverse=True
    )
    sets, owner = ascending[first], owner.reshape(-1)
    count = np.bincount(owner, minlength=len(keys))
    return Attempts(
        numbers,
        operators,
        middle,
        reduces_left_first(operators),
        value,
        sets,
        np.argsort(owner, kind="stable"),
        np.cumsum(count) - count,
        count,
    )


def solvable_puzzles(attempts: Attempts, targets: int, fewest: int) -> Puzzles:
    """Puzzles with a target from 1 to `targets` that some attempt reaches, of sets with at least `fewest` other attempts.

    Raises:
        BadInput: there are fewer than ten.
    """
    owner = np.repeat(np.arange(len(attempts.sets)), attempts.count)
    value = attempts.value[attempts.members]
    inside = (value >= 1) & (value <= targets)
    keys, puzzle, count = np.unique(
        owner[inside] * (targets + 1) + value[inside], return_inverse=True, return_counts=True
    )
    order = np.argsort(puzzle.reshape(-1), kind="stable")
    start, own = np.cumsum(count) - count, keys // (targets + 1)
    enough = attempts.count[own] - count >= fewest
    if int(enough.sum()) < 10:
        raise BadInput(
            f"a world must have at least 10 puzzles with a solution and {fewest} other attempts, got {int(enough.sum())}: raise "
            "`largest`, `targets` or `most`."
        )
    return Puzzles(
        attempts.sets[own[enough]],
        keys[enough] % (targets + 1),
        own[enough],
        attempts.members[inside][order],
        start[enough],
        count[enough],
    )
