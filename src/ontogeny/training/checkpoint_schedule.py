"""Checkpoint schedules: `every:100`, `log:16`, `sqrt:20`, `at:1,5,9`, joined by `+`; and extra steps around an event.

Logarithmic spacing resolves early learning, square-root spacing late changes (arXiv:2406.19370).
"""

import math
from collections.abc import Collection, Sequence

from ontogeny.errors import BadInput


def every_k_steps(last: int, k: int) -> tuple[int, ...]:
    """0, k, 2k, … and the last step."""
    if last < 1 or k < 1:
        raise BadInput(f"a schedule needs a step size and a last step of at least 1, got every:{k} up to {last}.")
    return tuple(sorted({*range(0, last, k), last}))


def log_steps(last: int, count: int, *, first: int = 1) -> tuple[int, ...]:
    """Step 0 and `count` - 1 steps up to `last`, evenly spaced in the logarithm; fewer if they coincide."""
    _check(last, count, first)
    ratio = math.log(last / first)
    marks = [round(first * math.exp(ratio * i / max(count - 2, 1))) for i in range(count - 1)]
    return tuple(sorted({0, *marks, last}))


def sqrt_steps(last: int, count: int, *, first: int = 1) -> tuple[int, ...]:
    """Step 0 and `count` - 1 steps up to `last`, evenly spaced in the square root; fewer if they coincide."""
    _check(last, count, first)
    low, high = math.sqrt(first), math.sqrt(last)
    marks = [round((low + (high - low) * i / max(count - 2, 1)) ** 2) for i in range(count - 1)]
    return tuple(sorted({0, *marks, last}))


def at_steps(last: int, steps: Collection[int]) -> tuple[int, ...]:
    """These steps, and the last one."""
    outside = [step for step in steps if not 0 <= step <= last]
    if outside or not steps:
        raise BadInput(f"steps must be 0 to {last}, the last of the run, got {outside[0] if outside else 'no step'}.")
    return tuple(sorted({*steps, last}))


def steps_around(saved: Sequence[int], event: int, k: int) -> tuple[int, ...]:
    """Up to k extra steps, evenly spaced between the checkpoints before and after an event, for `replay.densify`.

    If the event is itself a checkpoint, the gaps on both sides are filled.

    Raises:
        BadInput: the event is outside the run.
    """
    marks = sorted(set(saved))
    if len(marks) < 2 or not marks[0] <= event <= marks[-1] or k < 1:
        span = f"{marks[0]} to {marks[-1]}" if marks else "none"
        raise BadInput(f"steps around an event need an event between two checkpoints ({span}), got {k} around {event}.")
    low = max((mark for mark in marks if mark < event), default=marks[0])
    high = min((mark for mark in marks if mark > event), default=marks[-1])
    new = {round(low + (high - low) * i / (k + 1)) for i in range(1, k + 1)} - set(marks)
    return tuple(sorted(new))


def parse_schedule(text: str, last: int) -> tuple[int, ...]:
    """Steps of a written schedule in a run of `last` steps; `log:16:40` starts at step 40.

    Raises:
        BadInput: not a schedule, or one that does not fit the run.
    """
    steps: set[int] = set()
    for part in text.split("+"):
        kind, _, rest = part.strip().partition(":")
        try:
            numbers = [int(field) for field in rest.replace(",", ":").split(":")]
        except ValueError:
            raise _bad_schedule(part) from None
        if kind == "every" and len(numbers) == 1:
            steps.update(every_k_steps(last, numbers[0]))
        elif kind in ("log", "sqrt") and len(numbers) <= 2:
            spaced = log_steps if kind == "log" else sqrt_steps
            steps.update(spaced(last, numbers[0], first=numbers[1] if len(numbers) == 2 else 1))
        elif kind == "at":
            steps.update(at_steps(last, numbers))
        else:
            raise _bad_schedule(part)
    return tuple(sorted(steps))


def check_schedule(save_at: Collection[int], last: int) -> tuple[int, ...]:
    """The steps of a schedule, sorted.

    Raises:
        BadInput: the last step is not that of the run, or a step is negative.
    """
    marks = sorted(set(save_at))
    if not marks or marks[0] < 0 or marks[-1] != last:
        raise BadInput(f"`save_at` must be from 0 on and end with step {last}, got {marks}.")
    return tuple(marks)


def _check(last: int, count: int, first: int) -> None:
    if not (1 <= first <= last and count >= 2):
        raise BadInput(f"a schedule needs 1 <= first <= last and count >= 2, got {count} steps from {first} to {last}.")


def _bad_schedule(text: str) -> BadInput:
    return BadInput(
        f"a schedule must read like every:100, log:16, log:16:40, sqrt:20 or at:1,5,9, joined by +, got {text.strip()!r}."
    )
