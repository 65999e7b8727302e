"""`make faults`: every point, moment and end of every job, signals at random moments, small disks; a table, exit 1 on a difference."""

import argparse
import ctypes
import importlib.util
import itertools
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.forks import Forks
from tests.faults.on_ray import struck_on_ray
from tests.faults.subjects import prepare
from tests.faults.trials import Outcome, Trial, attempt, disk_trial, struck, trials, whole

JOBS = ("trace", "transfer", "evaluate", "monitor", "compare", "raise", "record")
SECONDS = {"trace": 1.5, "transfer": 4.0, "evaluate": 1.5, "monitor": 2.0, "compare": 2.0, "raise": 0.5}
"""How long the jobs take that are struck by signals, about."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
REMOUNT = 32


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--sample", type=int, default=0, help="points of each job and end; 0: all")
    asked.add_argument("--kills", type=int, default=50, help="each signal at so many random moments, over all jobs")
    asked.add_argument(
        "--ray", type=int, default=8, help="SIGKILL of so many workers and drivers on Ray; half a minute each"
    )
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder, Forks() as forks:
        home = Path(folder) / "home"
        home.mkdir()
        prepare(home)
        bad = list(table(forks, home, Path(folder), given.sample, given.kills, given.ray))
    for outcome in bad:
        print(
            outcome.trial, *outcome.faults, *(f"computed again: {unit}" for unit in sorted(outcome.again)), sep="\n  "
        )
    sys.exit(1 if bad else 0)


def table(forks: Forks, home: Path, folder: Path, sample: int, kills: int, on_ray: int) -> Iterator[Outcome]:
    """Prints a line for each job and way to end; gives back what went wrong."""
    draw = random.Random(0)
    print(f"{'job':8} {'ends by':10} {'crashes':>8} {'resumed equal':>14} {'units recomputed':>17} {'seconds':>8}")
    for job in JOBS:
        expected, points = whole(forks, job, home, folder / f"{job}-whole")
        for end in ("kill", "raise", "full"):
            chosen = [trial for trial in trials(job, points) if trial.end == end]
            chosen = draw.sample(chosen, min(sample, len(chosen))) if sample else chosen
            places = ((trial, folder / f"{job}-{end}-{i}") for i, trial in enumerate(chosen))
            yield from _line(job, end, (attempt(forks, trial, home, place, expected) for trial, place in places))
    for job, sent in itertools.product(SECONDS, SIGNALS):
        expected, _ = whole(forks, job, home, folder / f"{job}-{sent.name}-whole")
        moments = (draw.uniform(0.0, SECONDS[job]) for _ in range(kills // len(SECONDS)))
        places = ((moment, folder / f"{job}-{sent.name}-{i}") for i, moment in enumerate(moments))
        tried = (struck(forks, job, m, home, place, expected, sent) for m, place in places)
        yield from _line(job, sent.name, tried)
    if importlib.util.find_spec("ray"):
        expected, _ = whole(forks, "trace", home, folder / "ray-whole")
        for whom in ("worker", "driver"):
            moments = [draw.uniform(0.0, 2.0) for _ in range(on_ray // 2)]
            places = ((moment, folder / f"ray-{whom}-{i}") for i, moment in enumerate(moments))
            yield from _line("ray", whom, (struck_on_ray(forks, whom, m, home, p, expected) for m, p in places))
    else:
        print("ray      not tried, Ray is not installed")
    expected, _ = whole(forks, "trace", home, folder / "disk-whole")
    needed = sum(-(-path.stat().st_size // 4096) * 4 for path in (folder / "disk-whole").rglob("*") if path.is_file())
    yield from _line("trace", "small disk", _small_disks(forks, home, folder, expected, needed))


def _line(job: str, end: str, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    began = time.perf_counter()
    tried = list(outcomes)
    equal, again = sum(not o.faults for o in tried), sum(len(o.again) for o in tried)
    if tried:
        print(f"{job:8} {end:10} {len(tried):8} {equal:14} {again:17} {time.perf_counter() - began:8.0f}", flush=True)
    return (outcome for outcome in tried if not outcome.well)


def _small_disks(forks: Forks, home: Path, folder: Path, expected: dict[str, str], needed: int) -> Iterator[Outcome]:
    """A real file system that fills up, and has room again; needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    for kilobytes in range(8, needed, max(4, needed // 8)):
        place = folder / f"disk-{kilobytes}"
        place.mkdir()
        if not hasattr(libc, "mount") or libc.mount(b"tmpfs", bytes(place), b"tmpfs", 0, f"size={kilobytes}k".encode()):
            print("trace    small disk: not tried, only root may mount one")
            return
        try:
            yield disk_trial(
                forks,
                Trial("trace", 0, f"{kilobytes} kB", "full"),
                home,
                place,
                expected,
                lambda path=place: libc.mount(b"tmpfs", bytes(path), b"tmpfs", REMOUNT, b"size=8m"),
            )
        finally:
            libc.umount2(bytes(place), 2)


if __name__ == "__main__":
    main()
