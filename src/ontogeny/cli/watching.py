"""A progress bar over checkpoints with the time that is left; plain lines where the output is no terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator

from ontogeny.lab.progress import Progress, Watch, silent


@contextlib.contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Watch]:
    """A function that takes `Progress` and shows it on standard error."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bar() as watch:
            yield watch
    else:
        yield _lines()


@contextlib.contextmanager
def _bar() -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def watch(now: Progress) -> None:
            part = now.done / now.total if now.total else 0.0
            bar.update(task, total=now.of, completed=now.index + min(part, 0.99), description=_words(now))

        yield watch


def _lines() -> Watch:
    began, last = time.monotonic(), ""

    def watch(now: Progress) -> None:
        nonlocal last
        if now.checkpoint != last:
            last = now.checkpoint
            spent = time.monotonic() - began
            left = f", about {spent / now.index * (now.of - now.index):.0f} s left" if now.index else ""
            print(f"[{now.index}/{now.of}] {_words(now)} ({spent:.0f} s{left})", file=sys.stderr, flush=True)

    return watch


def _words(now: Progress) -> str:
    return f"{now.checkpoint} {now.what}".strip()
