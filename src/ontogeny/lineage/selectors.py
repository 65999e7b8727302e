"""Checkpoint selectors: `all`, `last`, `log`, `log:8`, `every:10`, `0,1000,143000`, `1000-5000`, or several of these.

`log` and `every:N` always include the first and the last checkpoint.
"""

import math
import re
from collections.abc import Sequence

from ontogeny.errors import BadInput
from ontogeny.lineage.checkpoint import Checkpoint

_SELECTOR_SYNTAX = "write all, first, last, log, log:8, every:10, steps like 0,1000 or a range like 1000-5000."


def select_checkpoints(checkpoints: Sequence[Checkpoint], text: str) -> tuple[set[Checkpoint], list[str]]:
    """The checkpoints of one stage that match a selector, and the terms without a match.

    Raises:
        BadInput: the selector is invalid.
    """
    terms = [term.strip() for term in text.split(",") if term.strip()]
    if not terms:
        raise BadInput(f"{text!r} selects no steps: {_SELECTOR_SYNTAX}")
    chosen: set[Checkpoint] = set()
    unmet = []
    for term in terms:
        matches = _term(checkpoints, term)
        chosen |= set(matches)
        if not matches:
            unmet.append(term)
    return chosen, unmet


def _term(checkpoints: Sequence[Checkpoint], term: str) -> Sequence[Checkpoint]:
    if re.search(r"\d{19}", term):
        raise BadInput(f"{term[:40]!r} selects no steps: a step has at most 18 digits.")
    if term == "all":
        return checkpoints
    if term in ("first", "last"):
        return checkpoints[:1] if term == "first" else checkpoints[-1:]
    if match := re.fullmatch(r"every:(\d+)", term):
        if int(match[1]) == 0:
            raise BadInput(f"{term!r} selects no steps: write every:1 or more.")
        return [*checkpoints[:: int(match[1])], *checkpoints[-1:]]
    if match := re.fullmatch(r"log(?::(\d+))?", term):
        if match[1] is None:
            return nearest_powers_of_two(checkpoints)
        if int(match[1]) < 2:
            raise BadInput(f"{term!r} selects too few steps: write log:2 or more.")
        return spread_checkpoints(checkpoints, int(match[1]))
    if match := re.fullmatch(r"(\d+)-(\d+)", term):
        return [c for c in checkpoints if c.step is not None and int(match[1]) <= c.step <= int(match[2])]
    if term.isdecimal():
        return [c for c in checkpoints if c.step == int(term)]
    named = [c for c in checkpoints if c.name == term]
    if not named and not re.search(r"\d", term):
        raise BadInput(f"{term!r} selects no steps: {_SELECTOR_SYNTAX}")
    return named


def nearest_powers_of_two(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """First, last, and the checkpoint nearest to each power of two, if within a factor of √2."""
    positive = [c for c in checkpoints if c.step]
    kept = {*checkpoints[:1], *checkpoints[-1:]}
    for exponent in range((positive[-1].step or 1).bit_length() if positive else 0):
        near = min(positive, key=lambda c: _log_distance(c, 2.0**exponent))
        if _log_distance(near, 2.0**exponent) <= math.log(2) / 2:
            kept.add(near)
    return [c for c in checkpoints if c in kept]


def spread_checkpoints(checkpoints: Sequence[Checkpoint], count: int) -> list[Checkpoint]:
    """`count` checkpoints, evenly spread on a logarithmic axis, with the first and the last."""
    if len(checkpoints) <= count:
        return list(checkpoints)
    kept = {checkpoints[0], checkpoints[-1]}
    positive = [c for c in checkpoints if c.step]
    rest = [c for c in positive if c not in kept]
    if rest and count > 2:
        low, high = math.log(positive[0].step or 1), math.log(positive[-1].step or 1)
        # After step 0, the smallest positive step is the first target.
        inner = count - 2
        offset = 0 if checkpoints[0].step == 0 else 1
        targets = [low + (high - low) * (i + offset) / (inner + offset) for i in range(inner)]
        for target in targets[: len(rest)]:  # checkpoints without a step have no place between them
            near = min(rest, key=lambda c: _log_distance(c, math.exp(target)))
            rest.remove(near)
            kept.add(near)
    return [c for c in checkpoints if c in kept]


def _log_distance(checkpoint: Checkpoint, step: float) -> float:
    return abs(math.log(checkpoint.step or 1) - math.log(step))


def no_such_step(term: str, checkpoints: Sequence[Checkpoint], where: str) -> BadInput:
    """The error for a missing step, with the nearest steps."""
    numbered = [c for c in checkpoints if c.step is not None]
    if not numbered:
        return BadInput(
            f"no checkpoint {term!r} in {where}: its {len(checkpoints)} checkpoints have no steps, so set `steps` to all."
        )
    where = f"{where}, which has {len(numbered)}"
    if match := re.fullmatch(r"(\d+)-(\d+)", term):
        first, last = numbered[0].step, numbered[-1].step
        return BadInput(
            f"no checkpoint with a step from {match[1]} to {match[2]} in {where} from {first} to {last}: set `steps` to log."
        )
    wanted = int(re.findall(r"\d+", term)[-1])
    below = [c for c in numbered if (c.step or 0) <= wanted][-1:]
    near = [*below, *[c for c in numbered if (c.step or 0) > wanted][:1]]
    name = near[0].name.replace(str(near[0].step), term) if term.isdigit() else term
    named = " and ".join(c.name for c in near)
    verb = "the nearest are" if len(near) > 1 else "the nearest is"
    steps = ",".join(str(c.step) for c in near)
    return BadInput(f"no checkpoint {name!r} in {where}: {verb} {named}, so set `steps` to {steps} or log.")
