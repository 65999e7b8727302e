"""A progress bar over checkpoints with the time that is left; plain lines where the output is no terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress

if TYPE_CHECKING:
    from ontogeny.training.train import TrainingProgress


@contextlib.contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[ProgressCallback]:
    """A function that takes `Progress` and shows it on standard error."""
    if quiet:
        yield ignore_progress
    elif sys.stderr.isatty():
        with _show_bar() as watch:
            yield watch
    else:
        yield _print_lines()


@contextlib.contextmanager
def _show_bar() -> Iterator[ProgressCallback]:
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

        def watch(now: TraceProgress) -> None:
            part = now.done / now.total if now.total else 0.0
            bar.update(task, total=now.of, completed=now.index + min(part, 0.99), description=_format_progress(now))

        yield watch


def _print_lines() -> ProgressCallback:
    began, last = time.monotonic(), ""

    def watch(now: TraceProgress) -> None:
        nonlocal last
        if now.checkpoint != last:
            last = now.checkpoint
            spent = time.monotonic() - began
            left = f", about {spent / now.index * (now.of - now.index):.0f} s left" if now.index else ""
            print(f"[{now.index}/{now.of}] {_format_progress(now)} ({spent:.0f} s{left})", file=sys.stderr, flush=True)

    return watch


def _format_progress(now: TraceProgress) -> str:
    return f"{now.checkpoint} {now.what}".strip()


TrainingProgressCallback = Callable[["TrainingProgress"], None]


@contextlib.contextmanager
def training_bar(*, quiet: bool) -> Iterator[TrainingProgressCallback | None]:
    """Steps, loss, rate and time left on standard error; a line every tenth of the run where that is no terminal."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        with Progress(
            TextColumn("    {task.description}"), BarColumn(), console=Console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task("training", total=None)
            yield lambda now: bar.update(
                task, total=now.steps, completed=now.step, description=_format_training_progress(now)
            )
    else:
        yield _print_training_lines()


def _print_training_lines() -> TrainingProgressCallback:
    said = 0

    def watch(now: "TrainingProgress") -> None:
        nonlocal said
        if now.step * 10 // now.steps > said:
            said = now.step * 10 // now.steps
            print(f"    {_format_training_progress(now)}", file=sys.stderr, flush=True)

    return watch


def _format_training_progress(now: "TrainingProgress") -> str:
    rate = f"{now.tokens_per_second:,.0f} tokens/s"
    return f"step {now.step} of {now.steps}, loss {now.loss:.2f}, {rate}, {now.seconds_left:.0f} s left"
