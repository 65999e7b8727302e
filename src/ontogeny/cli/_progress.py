"""Progress on standard error: a bar with the time left on a terminal, otherwise plain lines."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ontogeny.cli._streams import raw
from ontogeny.jobs.progress import TraceProgress, ignore_progress, progress_on_console

if TYPE_CHECKING:
    from ontogeny.training.toy_models.in_world import ToyStage
    from ontogeny.training.train import TrainingProgress

ShowProgress = Callable[[Any], None]


@contextlib.contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[ShowProgress]:
    """A callback that shows the progress of a long job or of a training."""
    if quiet or not sys.stderr.isatty():
        yield ignore_progress if quiet else _line_printer()
        return
    from rich.console import Console

    with progress_on_console(Console(file=raw(sys.stderr))) as bar:

        def show(now: "TraceProgress | TrainingProgress") -> None:
            text, done, total, _ = _state(now)
            bar(text, done, total, _phase(now))

        yield show


@contextlib.contextmanager
def stage_bars(*, quiet: bool) -> "Iterator[Callable[[str, ToyStage], ShowProgress]]":
    """A callback that announces each stage of a training and returns its `progress_bar`."""
    with contextlib.ExitStack() as bars:

        def on_stage(name: str, stage: "ToyStage") -> ShowProgress:
            if not quiet:
                print(f"{name}: {stage.training.steps:,} steps", file=sys.stderr)
            return bars.enter_context(progress_bar(quiet=quiet))

        yield on_stage


def _line_printer() -> ShowProgress:
    """A callback that prints a line at each checkpoint, or each tenth of a training."""
    start, last, phase, begun = time.monotonic(), "", "", 0

    def show(now: "TraceProgress | TrainingProgress") -> None:
        nonlocal start, last, phase, begun
        text, done, total, mark = _state(now)
        if _phase(now) != phase:
            # Units of an earlier session do not count as speed.
            start, phase, begun = time.monotonic() if phase else start, _phase(now), int(done)
        if mark != last:
            last, spent, done = mark, time.monotonic() - start, int(done)
            left = f", about {spent / (done - begun) * (total - done):.0f} s left" if done > begun else ""
            print(f"[{done}/{total}] {text} ({spent:.0f} s{left})", file=sys.stderr, flush=True)

    return show


def _phase(now: "TraceProgress | TrainingProgress | None") -> str:
    """The phase of a job: each has its own count, time and estimate."""
    return now.phase if isinstance(now, TraceProgress) else "visiting"


def _state(now: "TraceProgress | TrainingProgress") -> tuple[str, float, int, str]:
    """Description, amount done, total, and a mark that changes when a new line is due."""
    if isinstance(now, TraceProgress):
        return now.text, now.amount, now.checkpoints_total, now.checkpoint
    text, tenth = f"loss {now.loss:.2f}, {now.tokens_per_second:,.0f} tokens/s", now.step * 10 // now.steps
    return text, now.step, now.steps, str(tenth or "")
