"""Parts of all contracts: run clauses with a note that names the plug-in, and require an error."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Clause = Callable[..., None]
"""A check of one property, named by what holds; it raises AssertionError."""


def run_clauses(kind: str, name: str, clauses: Sequence[Clause], *arguments: Any) -> None:
    """Call each clause; a failure names the plug-in and what must hold."""
    for clause in clauses:
        try:
            clause(*arguments)
        except AssertionError as error:
            error.add_note(f"the {kind} {name} breaks its contract: {clause.__name__.replace('_', ' ')}")
            raise


@contextlib.contextmanager
def rejects(errors: type[BaseException] | tuple[type[BaseException], ...], match: str = "") -> Iterator[None]:
    """Require that the block raises one of `errors`, with a message that matches a pattern."""
    try:
        yield
    except errors as error:
        if not re.search(match, str(error)):
            raise AssertionError(f"the message must match {match!r}, got {error}") from error
        return
    raise AssertionError(f"{errors} must be raised, got no error")
