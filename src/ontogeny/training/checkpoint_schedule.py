"""At which steps a run is saved: `every:100`, `log:16`, `sqrt:20`, `at:1,5,9`, joined by `+`; and more of them around an event.

Steps spaced evenly in the logarithm show what is learned early, in the root what turns late (arXiv:2406.19370).
"""

import math
from collections.abc import Collection, Sequence

from ontogeny.errors import BadInput


def every_k_steps(last: int, k: int) -> tuple[int, ...]:
    """0, k, 2k, … and the last step."""
    if last < 1 or k < 1:
        raise BadInput(f"no schedule of every {k} steps up to {last}. Take whole numbers from 1 on.")
    return tuple(sorted({*range(0, last, k), last}))


def log_steps(last: int, count: int, *, first: int = 1) -> tuple[int, ...]:
    """Step 0 and `count` - 1 steps up to `last`, evenly spaced in the logarithm; fewer where they would coincide."""
    _check(last, count, first)
    ratio = math.log(last / first)
    marks = [round(first * math.exp(ratio * i / max(count - 2, 1))) for i in range(count - 1)]
    return tuple(sorted({0, *marks, last}))


def sqrt_steps(last: int, count: int, *, first: int = 1) -> tuple[int, ...]:
    """Step 0 and `count` - 1 steps up to `last`, evenly spaced in the square root; fewer where they would coincide."""
    _check(last, count, first)
    low, high = math.sqrt(first), math.sqrt(last)
    marks = [round((low + (high - low) * i / max(count - 2, 1)) ** 2) for i in range(count - 1)]
    return tuple(sorted({0, *marks, last}))


def at_steps(last: int, steps: Collection[int]) -> tuple[int, ...]:
    """These steps, and the last one."""
    outside = [step for step in steps if not 0 <= step <= last]
    if outside or not steps:
        raise BadInput(
            f"no step {outside[0] if outside else '(none given)'} in a run of {last}. Give steps of 0 to {last}."
        )
    return tuple(sorted({*steps, last}))


def steps_around(saved: Sequence[int], event: int, k: int) -> tuple[int, ...]:
    """Up to k more steps, evenly spaced between the checkpoints before and after an event: for a second pass over a finished run.

    Where the event is itself a checkpoint, the gaps on both sides of it are filled.

    Raises:
        BadInput: an event outside of the run.
    """
    marks = sorted(set(saved))
    if len(marks) < 2 or not marks[0] <= event <= marks[-1] or k < 1:
        span = f"{marks[0]} to {marks[-1]}" if marks else "none"
        raise BadInput(
            f"no {k} steps around {event}: the run's checkpoints are {span}. Give an event between two of them."
        )
    low = max((mark for mark in marks if mark < event), default=marks[0])
    high = min((mark for mark in marks if mark > event), default=marks[-1])
    new = {round(low + (high - low) * i / (k + 1)) for i in range(1, k + 1)} - set(marks)
    return tuple(sorted(new))


def parse_schedule(text: str, last: int) -> tuple[int, ...]:
    """The steps that a schedule's name stands for in a run of `last` steps; `log:16:40` starts at step 40.

    Raises:
        BadInput: no schedule, or one that does not fit the run.
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
    """The steps of a schedule, sorted; they must end with the run.

    Raises:
        BadInput: they do not.
    """
    marks = sorted(set(save_at))
    if not marks or marks[0] < 0 or marks[-1] != last:
        raise BadInput(f"checkpoints at {marks} do not fit a run of {last} steps. End with step {last}.")
    return tuple(marks)


def _check(last: int, count: int, first: int) -> None:
    if not (1 <= first <= last and count >= 2):
        raise BadInput(f"no schedule of {count} steps from {first} to {last}. Take 1 <= first <= last and count >= 2.")


def _bad_schedule(text: str) -> BadInput:
    return BadInput(
        f"{text.strip()!r} is no schedule. Write every:100, log:16, log:16:40, sqrt:20 or at:1,5,9, joined by +."
    )
