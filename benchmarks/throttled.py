"""Overlap of download and computation: is the total the slower of the two, or their sum?

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/throttled.py` (two minutes). Each fetch sleeps as long as a download of that size would
take; the trace is a real one. Wall seconds, for waiting is the point.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import workload

from ontogeny import Concept, Lineage
from ontogeny.jobs.trace import executor
from ontogeny.jobs.trace.trace import trace
from ontogeny.measurements.settings import TraceSettings

DEPTH = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100)
    told = parser.parse_args()
    torch.set_num_threads(1)
    work = workload.make("70m", told.texts, DEPTH)
    once(work, 0.0)  # what is done once a process
    compute = once(work, 0.0)
    rows = []
    for share in (0.5, 1.0, 2.0):
        pause = share * compute / DEPTH
        found = once(work, pause)
        longest, both = max(compute, DEPTH * pause), compute + DEPTH * pause
        # The first download and the last computation overlap with nothing.
        least = longest + min(pause, compute / DEPTH)
        rows.append({"download / compute": share, "total": found, "longest": longest, "least": least, "sum": both})
        print(
            f"download {DEPTH * pause:.1f} s, compute {compute:.1f} s: total {found:.1f} s; slower of the two {longest:.1f}, sum {both:.1f}"
        )
    print(json.dumps(rows))


def once(work: workload.Work, pause: float) -> float:
    out = workload.ROOT / "throttled"
    shutil.rmtree(out, ignore_errors=True)
    fetch = executor.fetch_checkpoint

    def slow(checkpoint, **more):
        time.sleep(pause)
        return fetch(checkpoint, **more)

    executor.fetch_checkpoint = slow
    try:
        began = time.perf_counter()
        trace(Lineage.open(work.folder), [Concept.from_file(work.texts)], out, TraceSettings(untrained=False))
        return time.perf_counter() - began
    finally:
        executor.fetch_checkpoint = fetch


if __name__ == "__main__":
    main()
