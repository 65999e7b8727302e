"""Progress of a training: a bar, or a line every tenth of the run where the output is no terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ontogeny.lab.training import TrainingProgress

Watch = Callable[["TrainingProgress"], None]


@contextlib.contextmanager
def training_bar(*, quiet: bool) -> Iterator[Watch | None]:
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
            yield lambda now: bar.update(task, total=now.steps, completed=now.step, description=_words(now))
    else:
        yield _lines()


def _lines() -> Watch:
    said = 0

    def watch(now: "TrainingProgress") -> None:
        nonlocal said
        if now.step * 10 // now.steps > said:
            said = now.step * 10 // now.steps
            print(f"    {_words(now)}", file=sys.stderr, flush=True)

    return watch


def _words(now: "TrainingProgress") -> str:
    rate = f"{now.tokens_per_second:,.0f} tokens/s"
    return f"step {now.step} of {now.steps}, loss {now.loss:.2f}, {rate}, {now.seconds_left:.0f} s left"
