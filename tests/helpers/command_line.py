"""Run `ontogeny` in this process, so that packages are loaded only once."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest


class Said(NamedTuple):
    code: int
    out: str
    err: str


Say = Callable[..., Said]


def command(*args: object) -> int:
    """Run a command and return its exit code."""
    from ontogeny import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ontogeny", *map(str, args)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
