"""Progress of a long job: its events, and the bar that shows them in a terminal or a notebook."""

import contextlib
import functools
import html
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ontogeny.errors import escape_control

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class TraceProgress:
    """One step of a long job."""

    checkpoint: str
    """The checkpoint with its stage, as in base 1,200."""
    checkpoints_done: int
    checkpoints_total: int
    activity: str
    """`reading`, `measuring truth`, …"""
    done: int = 0
    """Texts of this activity that are done."""
    total: int = 0
    phase: str = "visiting"
    """After the visits: `merging` and `relating`, which count their own steps in the place of checkpoints."""

    @property
    def text(self) -> str:
        """The checkpoint and its activity."""
        return f"{self.checkpoint} {self.activity}".strip()

    @property
    def amount(self) -> float:
        """Checkpoints done, with the share of the one at work."""
        return self.checkpoints_done + min(self.done / (self.total or 1), 0.99)


ProgressCallback = Callable[[TraceProgress], None]


def ignore_progress(_: TraceProgress) -> None:
    """Do nothing."""


_P = ParamSpec("_P")
_R = TypeVar("_R")


def shows_progress(job: Callable[_P, _R]) -> Callable[_P, _R]:
    """A job that shows its progress in a terminal or a notebook, unless it is given `on_progress`."""

    @functools.wraps(job)
    def run(*args: _P.args, **options: _P.kwargs) -> _R:
        display = None if "on_progress" in options else _display()
        if display is None:
            return job(*args, **options)
        with display as show:
            options["on_progress"] = lambda now: show(now.text, now.amount, now.checkpoints_total, now.phase)
            return job(*args, **options)

    return run


@contextlib.contextmanager
def progress_on_console(console: "Console") -> Iterator[Callable[[str, float, int, str], None]]:
    """A bar with the time left; the callback takes a description, the amount done, the total, and the phase, which has its own time."""
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=console, transient=True) as bar:
        task, phase = bar.add_task("starting", total=None), ""

        def show(text: str, done: float, total: int, now: str) -> None:
            nonlocal phase
            if now != phase:
                # Units of an earlier session do not count as speed.
                bar.reset(task, completed=int(done), total=total)
            phase = now
            bar.update(task, description=escape(escape_control(text)), completed=done, total=total)

        yield show


@contextlib.contextmanager
def progress_line() -> Iterator[Callable[[str, float, int, str], None]]:
    """One line below the cell of a notebook, which is rewritten, and empty at the end; for notebooks without ipywidgets."""
    from IPython.display import HTML, display

    handle, phase, start, begun = display(HTML(""), display_id=True), "", 0.0, 0.0

    def show(text: str, done: float, total: int, now: str) -> None:
        nonlocal phase, start, begun
        if now != phase:
            phase, start, begun = now, time.monotonic(), done
        spent = time.monotonic() - start
        left = f", about {spent * (total - done) / (done - begun):.0f} s left" if done > begun else ""
        handle.update(HTML(f"<code>[{int(done)}/{total}] {html.escape(escape_control(text))}{left}</code>"))

    try:
        yield show
    finally:
        handle.update(HTML("<!-- done -->"))


def _display() -> "contextlib.AbstractContextManager[Callable[[str, float, int, str], None]] | None":
    """The progress of a terminal or a notebook; None if output goes elsewhere, as in tests, pipes and batch jobs."""
    in_notebook = "ipykernel" in sys.modules
    if in_notebook and find_spec("ipywidgets") is None:
        # Rich would warn at each step in place of drawing.
        return progress_line()
    if not in_notebook and not (sys.stderr and sys.stderr.isatty()):
        return None
    from rich.console import Console

    return progress_on_console(Console(stderr=not in_notebook))
