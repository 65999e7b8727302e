"""Lines of progress for a log: each phase of a job counts its own steps and estimates its own time."""

import pytest

from ontogeny.cli import _progress
from ontogeny.jobs.progress import TraceProgress


def test_relating_has_its_own_count_and_estimate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 100.0, 200.0, 200.0, 230.0])
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    show = _progress._line_printer()
    show(TraceProgress("step 3", 1, 2, "loading"))
    show(TraceProgress("relating a", 0, 4, "", 0, 360, "relating"))
    show(TraceProgress("relating a", 0, 4, "", 90, 360, "relating"))
    show(TraceProgress("relating b", 1, 4, "", 0, 360, "relating"))
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] step 3 loading (100 s)",  # the first may be of an earlier session
        "[0/4] relating a (0 s)",
        "[1/4] relating b (30 s, about 90 s left)",
    ]
