"""Errors for people: what happened, what was given, what to do next; the command line prints them as one line."""

import difflib
import re
from collections.abc import Iterable, Mapping


class BadInput(Exception):
    """The input cannot be used as given; the message says what must hold, what was given and what to do.

    A message names arguments as Python spells them, in backticks: "Shorten the texts, or set `truncate`." Each face spells them in its
    own way: `spelled` gives the command line's form.

    Args:
        message: The whole message, one line.
        argument: Name of the argument at fault; by default the first one in backticks.
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        named = re.search(_ARGUMENT, message)
        self.argument = argument or (named[1] if named else None)

    def spelled(self, options: Mapping[str, str]) -> str:
        """The message with each argument in backticks replaced by its option, where `options` has one."""
        return re.sub(_ARGUMENT, lambda found: options.get(found[1], found[0]), str(self))


_ARGUMENT = r"`([a-z_]+)`"


class CheckpointError(BadInput):
    """One checkpoint cannot be read; the others of its lineage still can."""


class SingleClassError(BadInput):
    """A fit or a metric needs two classes and was given one."""

    def __init__(self, what: str, n: int, label: object) -> None:
        super().__init__(
            f"{what} needs examples of two classes: all {n} have the label {label!r}. Add the other class."
        )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for a name that is not among the known ones, with the nearest as a suggestion."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return BadInput(f"no {kind} called {name!r}; did you mean {near[0]}?")
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "there is none"
    return BadInput(f"no {kind} called {name!r}; known: {listed}.")
