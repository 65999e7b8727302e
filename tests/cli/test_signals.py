"""Ctrl-C ends a command with one line and the exit code 130, also inside a query of DuckDB, which would not hear the signal."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from ontogeny.records import Record
from ontogeny.storage.run import Run

ENDLESS = "select sum(a.range * b.range) from range(10000000) a, range(1000000) b, records"
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ontogeny.cli import main; main()"
)
"""A shell starts a command in the background with SIGINT ignored."""


def test_interrupted_query_is_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.describe({"lineage": {"name": "x", "checkpoints": []}, "concepts": [], "settings": {}})
    run.keep("a", [Record("m", 0.5, n=1)])
    words = [sys.executable, "-c", COMMAND, "query", str(run.folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    # What a query without work costs, once all modules are compiled: the time until DuckDB is at its query.
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*words, "select 1 as one from records"], check=True, capture_output=True, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with subprocess.Popen(
        [*words, ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            _wait_until_busy(process.pid, seconds=2 * start + 1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()  # a query that is not interrupted would never end
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines() == ["ontogeny: interrupted. Start the same command again: finished work is kept."]


def _wait_until_busy(process: int, *, seconds: float) -> None:
    """Wait until a process has several threads and computed for so long: DuckDB is at its query."""
    ticks = os.sysconf("SC_CLK_TCK")
    while True:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        if (int(fields[11]) + int(fields[12])) / ticks > seconds:
            return
        time.sleep(0.05)
