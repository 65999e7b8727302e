"""Progress on standard error: a bar with the time left on a terminal, otherwise plain lines."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress

if TYPE_CHECKING:
    from ontogeny.training.toy_models.in_world import ToyStage
    from ontogeny.training.train import TrainingCallback, TrainingProgress

T = TypeVar("T")


@contextlib.contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[ProgressCallback]:
    """A callback that shows progress over checkpoints."""
    start = time.monotonic()

    def state(now: TraceProgress) -> dict[str, Any]:
        part = now.done / now.total if now.total else 0.0
        return {
            "total": now.checkpoints_total,
            "completed": now.checkpoints_done + min(part, 0.99),
            "description": describe(now),
        }

    def line(now: TraceProgress) -> str:
        spent = time.monotonic() - start
        left = (
            f", about {spent / now.checkpoints_done * (now.checkpoints_total - now.checkpoints_done):.0f} s left"
            if now.checkpoints_done
            else ""
        )
        return f"[{now.checkpoints_done}/{now.checkpoints_total}] {describe(now)} ({spent:.0f} s{left})"

    def describe(now: TraceProgress) -> str:
        return f"{now.checkpoint} {now.activity}".strip()

    with _display(state, _lines(lambda now: now.checkpoint, "", line), quiet=quiet) as show:
        yield show or ignore_progress


@contextlib.contextmanager
def training_bar(*, quiet: bool) -> "Iterator[TrainingCallback | None]":
    """A callback that shows steps, loss and rate; as plain lines, one every tenth of the steps."""

    def state(now: "TrainingProgress") -> dict[str, Any]:
        return {"total": now.steps, "completed": now.step, "description": f"    {describe(now)}"}

    def describe(now: "TrainingProgress") -> str:
        return f"loss {now.loss:.2f}, {now.tokens_per_second:,.0f} tokens/s"

    def line(now: "TrainingProgress") -> str:
        return f"    step {now.step} of {now.steps}, {describe(now)}, {now.seconds_left:.0f} s left"

    with _display(state, _lines(lambda now: now.step * 10 // now.steps, 0, line), quiet=quiet) as show:
        yield show


@contextlib.contextmanager
def stage_bars(*, quiet: bool) -> "Iterator[Callable[[str, ToyStage], TrainingCallback | None]]":
    """A callback that announces each stage of a training and returns its `training_bar`."""
    with contextlib.ExitStack() as bars:

        def on_stage(name: str, stage: "ToyStage") -> "TrainingCallback | None":
            if not quiet:
                print(f"{name}: {stage.training.steps:,} steps", file=sys.stderr)
            return bars.enter_context(training_bar(quiet=quiet))

        yield on_stage


@contextlib.contextmanager
def _display(
    state: Callable[[T], dict[str, Any]], lines: Callable[[T], None], *, quiet: bool
) -> Iterator[Callable[[T], None] | None]:
    """A callback that updates a bar on a terminal and otherwise prints lines; None if quiet."""
    if quiet or not sys.stderr.isatty():
        yield None if quiet else lines
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    counts = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *counts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda now: bar.update(task, **state(now))


def _lines(key: Callable[[T], Any], first: Any, line: Callable[[T], str]) -> Callable[[T], None]:
    """A callback that prints a line whenever the key changes."""
    last = first

    def show(now: T) -> None:
        nonlocal last
        if key(now) != last:
            last = key(now)
            print(line(now), file=sys.stderr, flush=True)

    return show
