"""Errors for users, each one line: the requirement, the value given, and the remedy."""

import difflib
import re
from collections.abc import Iterable, Mapping


class BadInput(Exception):
    """Invalid input. The message, one line, says what must hold, what was given and what to do.

    Messages name arguments as in Python, in backticks: "…: shorten the texts, or set `truncate`." The command line replaces them by its
    options (`spelled`).

    Args:
        message: The whole message.
        argument: Name of the invalid argument; by default the first one in backticks.
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        named = re.search(_ARGUMENT, message)
        self.argument = argument or (named[1] if named else None)

    def spelled(self, options: Mapping[str, str]) -> str:
        """The message with each argument in backticks replaced by its option, where `options` has one."""
        return re.sub(_ARGUMENT, lambda found: options.get(found[1], found[0]), str(self))


_ARGUMENT = r"`([a-z_]+)`"


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")
"""Control characters except the tab and the line feed, marks of direction, and what no file in UTF-8 or XML holds."""


def escape_control(text: str) -> str:
    """A text with its control characters written out, as `\\x1b`: a terminal obeys them, and no picture can hold them."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_SECRET = re.compile(r"(\b(?:hf_|ghp_|glpat-))[A-Za-z0-9_-]{16,}|(:/{1,2})[^/@\s'\"]+(?=@)|(token=)[^&\s'\"]+")


def redact(text: str) -> str:
    """A text without access tokens, and without user and password in its URLs."""
    return _SECRET.sub(lambda found: f"{found[found.lastindex or 0]}***", text)


class CheckpointError(BadInput):
    """One checkpoint cannot be read; others of its lineage may be readable."""


class SingleClassError(BadInput):
    """A probe or metric needs two classes and received one."""

    def __init__(self, what: str, n: int, label: object) -> None:
        super().__init__(
            f"{what} needs examples of two classes, but all {n} have the label {label!r}: add the other class."
        )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for an unknown name, with the nearest known name as a suggestion."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if near:
        return BadInput(f"no {kind} called {name!r}; did you mean {near[0]}?")
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "there is none"
    return BadInput(f"no {kind} called {name!r}; known: {listed}.")
