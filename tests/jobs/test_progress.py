"""Progress of a job in Python: a bar in a terminal or notebook, nothing elsewhere, and the caller's callback before both."""

import io
import itertools
import sys
from contextlib import nullcontext
from types import ModuleType

import pytest
from rich.console import Console

from ontogeny.jobs import progress
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress

EVENTS = (TraceProgress("base 1,200", 3, 8, "measuring truth"), TraceProgress("relating", 1, 2, "", phase="relating"))


@shows_progress
def job(count: int, *, on_progress: ProgressCallback = ignore_progress) -> int:
    """A job of two events."""
    for event in EVENTS:
        on_progress(event)
    if count < 0:
        raise ValueError("a fault")
    return 2 * count


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert job(4) == 8
    assert "base 1,200 measuring truth" in screen.getvalue()
    assert "relating" in screen.getvalue()
    with pytest.raises(ValueError, match="a fault"):
        job(-1)


def test_nothing_is_shown_elsewhere_or_beside_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    assert job(1) == 2
    assert pipe.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    seen: list[TraceProgress] = []
    assert job(1, on_progress=seen.append) == 2
    assert (tuple(seen), screen.getvalue()) == (EVENTS, "")


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_a_bar_or_one_line_that_is_rewritten(widgets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ipywidgets rich would print a warning at each step in place of the bar."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown: list[str] = []

    class Handle:
        update = staticmethod(shown.append)

    kernel = ModuleType("IPython.display")
    kernel.HTML = str  # type: ignore[attr-defined]
    kernel.display = lambda first, display_id: shown.append(first) or Handle()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", kernel)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(progress, "find_spec", lambda _: ModuleType("ipywidgets") if widgets else None)
    monkeypatch.setattr(progress, "progress_on_console", lambda console: nullcontext(lambda *_: shown.append("bar")))
    assert job(4) == 8
    if widgets:
        assert shown == ["bar", "bar"]
    else:
        assert [line.startswith("<code>") for line in shown] == [False, True, True, False]
        assert shown[1] == "<code>[3/8] base 1,200 measuring truth</code>"


@pytest.mark.parametrize("display", ["line", "notebook"])
def test_units_of_an_earlier_session_do_not_count_as_speed(
    display: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ontogeny.cli._progress import progress_bar

    clock = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown: list[str] = []
    if display == "line":
        with progress_bar() as bar:
            for done in (90, 91):
                bar(TraceProgress(f"base {done}", done, 100, ""))
        shown = capsys.readouterr().err.splitlines()
    else:
        kernel = ModuleType("IPython.display")
        kernel.HTML = str  # type: ignore[attr-defined]
        kernel.display = lambda first, display_id: type("Handle", (), {"update": staticmethod(shown.append)})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython.display", kernel)
        with progress.progress_line() as show:
            for done in (90, 91):
                show(f"base {done}", done, 100, "visiting")
    assert "left" not in shown[0]
    assert "about 180 s left" in shown[1]  # one unit in 20 seconds, nine are left


def test_a_new_phase_has_its_own_count() -> None:
    screen = Terminal()
    with progress.progress_on_console(Console(file=screen, force_terminal=True, width=120)) as show:
        show("reading", 7, 8, "visiting")
        show("relating", 0, 2, "relating")
    assert "0/2" in screen.getvalue()


def test_jobs_with_progress_show_it() -> None:
    from ontogeny.jobs.compare.compare import compare
    from ontogeny.jobs.evaluate.evaluate import evaluate
    from ontogeny.jobs.monitor.frozen_probes import monitor_frozen_probes
    from ontogeny.jobs.trace.trace import trace
    from ontogeny.jobs.transfer.cross_model import transfer_to_model
    from ontogeny.jobs.transfer.transfer import transfer

    for one in (trace, evaluate, compare, transfer, transfer_to_model, monitor_frozen_probes):
        assert hasattr(one, "__wrapped__"), one
