"""Errors for people: what happened, what was given, what to do next; the command line prints them as one line."""

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """The input cannot be used as given; the message says what happened, what was given and what to do."""


class CheckpointFault(BadInput):
    """One checkpoint cannot be read; the others of its lineage still can."""


class OneClass(BadInput):
    """A fit or a metric needs two classes and was given one."""

    def __init__(self, what: str, n: int, label: object) -> None:
        super().__init__(
            f"{what} needs examples of two classes: all {n} have the label {label!r}. Add the other class."
        )


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for a name that is not among the known ones, with the nearest as a suggestion."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return BadInput(f"no {kind} called {name!r}; did you mean {near[0]}?")
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "there is none"
    return BadInput(f"no {kind} called {name!r}; known: {listed}.")
