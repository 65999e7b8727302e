"""A trace on two Ray workers; one worker or the driver is killed by SIGKILL, and the trace is resumed.

As a command (`python -m tests.faults.on_ray HOME OUT`) it is the process that is killed.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from tests.faults.forks import ROOT, Forks
from tests.faults.subjects import SUBJECTS
from tests.faults.trials import Outcome, Trial, compared

WAIT = 120
"""Seconds within which a trace on Ray has begun, or ended."""


def struck_on_ray(
    forks: Forks, whom: str, seconds: float, home: Path, folder: Path, expected: dict[str, str]
) -> Outcome:
    """SIGKILL to the `driver` or a `worker`, so many seconds after the first visit began; what is left is gone on with, and compared.

    A driver goes on by itself where a worker dies. Where it died itself, a process without Ray ends the run, at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out, trial = folder / "out", Trial("trace", 0, f"{seconds:.3f} s", f"{whom} killed")
    command = [sys.executable, "-m", "tests.faults.on_ray", str(home), str(out)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as driver:
        faults = _strike(driver, whom, seconds, out)
        done = finished(out)
        try:
            said, _ = driver.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            driver.kill()
            return Outcome(trial, (*faults, "it does not end"))
    ends = 0 if whom == "worker" else -signal.SIGKILL
    faults += [f"ended with {driver.returncode}: {said[-600:]}"] if driver.returncode != ends else []
    if whom == "driver" and (resumed := forks.run("trace", home, out)).code:
        return Outcome(trial, (*faults, f"it does not go on: {resumed.said.strip().splitlines()[-1]}"))
    again = {unit for unit, was in done.items() if finished(out).get(unit) not in (was, None)}
    return Outcome(trial, (*faults, *compared(SUBJECTS["trace"].left(out), expected)), frozenset(again))


def finished(out: Path) -> dict[str, int]:
    """The finished units of a run and of its shares; a part that is written again is another file, one that is moved is not."""
    found = {}
    for _ in range(3):  # what is moved meanwhile is somewhere else
        for path in [*out.glob("shards/*/records/*.parquet"), *(out / "records").glob("[!.]*.parquet")]:
            try:
                found[path.stem] = path.stat().st_ino
            except FileNotFoundError:
                continue
    return {unit: inode for unit, inode in found.items() if not unit.startswith("series")}


def workers_of(process: int, call: bytes = b"ray::RayWorker.visit") -> list[int]:
    """The workers of Ray below a process that are in a call, by default at a visit."""
    parents, busy = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if (folder / "cmdline").read_bytes().startswith(call):
                busy.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue

    def below(pid: int) -> bool:
        return pid == process or (pid in parents and below(parents[pid]))

    return [pid for pid in busy if below(pid)]


def _strike(driver: "subprocess.Popen[str]", whom: str, seconds: float, out: Path) -> list[str]:
    until = time.monotonic() + WAIT
    while not (busy := workers_of(driver.pid)):
        if driver.poll() is not None or time.monotonic() > until:
            return ["it never began"]
        time.sleep(0.02)
    time.sleep(seconds)
    victims = [driver.pid] if whom == "driver" else workers_of(driver.pid) or busy
    for victim in victims[:1]:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:  # it ended earlier
            continue
    return []


def main() -> None:
    import torch

    from ontogeny.jobs.trace.ray_cluster import RayCluster
    from ontogeny.jobs.trace.trace import trace
    from tests.faults import subjects

    torch.set_num_threads(1)
    with mock.patch.object(subjects, "trace", lambda *given: trace(*given, cluster=RayCluster(workers=2))):
        subjects.trace_it(*map(Path, sys.argv[1:]))


if __name__ == "__main__":
    main()
