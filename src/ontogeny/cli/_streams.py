"""Standard output and error, with control characters written out, so that no name moves the cursor or sets a terminal's title."""

import codecs
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from ontogeny.errors import escape_control, redact

_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")


class VisibleStream:
    """A text stream that writes control characters out and no access token; on a terminal, colours and bold print pass."""

    def __init__(self, raw: Any) -> None:
        self.raw_stream = raw
        self._styled = raw.isatty() or "FORCE_COLOR" in os.environ

    def write(self, text: str) -> int:
        parts = _STYLE.split(text) if self._styled else [text]  # every second part is a style
        self.raw_stream.write("".join(part if i % 2 else escape_control(redact(part)) for i, part in enumerate(parts)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw_stream, name)


_UNENCODABLE = "ontogeny.unencodable"
"""Name of the error handler of streams."""


def _written_out(error: UnicodeError) -> tuple[bytes, int]:
    """A character that the terminal's encoding lacks, written out as \\u2026; bytes of a file's name that are no text, as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return character.encode("ascii", "backslashreplace"), error.start + 1


codecs.register_error(_UNENCODABLE, _written_out)


@contextlib.contextmanager
def visible_streams() -> Iterator[None]:
    """Write through `VisibleStream` for the duration of a command."""
    _open_closed_descriptors()
    streams = sys.stdout, sys.stderr
    with open(os.devnull, "w") as null, contextlib.ExitStack() as restored:
        for stream in streams:
            if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
                restored.callback(reconfigure, errors=stream.errors)
                reconfigure(errors=_UNENCODABLE)
        sys.stdout, sys.stderr = (VisibleStream(stream or null) for stream in streams)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams


def _open_closed_descriptors() -> None:
    """Open the null device where the shell has closed standard input, output or error, or a file of ours would take its place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def raw(stream: Any) -> Any:
    """The stream below, for data and for progress bars, which move the cursor."""
    return getattr(stream, "raw_stream", stream)
