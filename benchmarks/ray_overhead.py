"""Overhead of Ray per checkpoint: the same checkpoints in this process and with one worker, one thread.

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/ray_overhead.py` (some minutes). Small visits: what Ray adds does not grow with them.
Two figures that other programs on the machine disturb little: CPU seconds of all processes together, Ray's too, of nine checkpoints less
those of one; and the seconds between the end of a visit and the beginning of the next, from the ledger.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import psutil
import torch
import workload

from ontogeny import Concept, Lineage
from ontogeny.jobs.trace.ray_cluster import RayCluster
from ontogeny.jobs.trace.trace import trace
from ontogeny.measurements.settings import TraceSettings

FEW, MANY = 1, 9
UNIT = 20.0
"""Seconds of the unit that the overhead is compared with."""


@dataclass(frozen=True)
class Cost:
    cpu: float
    between: float
    """Idle wall seconds between checkpoints; the ledger has whole seconds, so ± 1 / checkpoints."""


class Meter:
    """CPU seconds of this process and its descendants; for ended ones the last value."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}
        self.before = time.process_time()

    def look(self, _: object = None) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                used = process.cpu_times()
                self.seen[process.pid] = used.user + used.system
            except psutil.NoSuchProcess:
                continue

    def cpu(self) -> float:
        return time.process_time() - self.before + sum(self.seen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    torch.set_num_threads(1)
    work = {count: workload.make("70m", told.texts, count) for count in (FEW, MANY)}
    once(work[FEW], None)  # what is done once a process
    rows = []
    for _ in range(told.rounds):
        row = {}
        for name, cluster in (("process", None), ("ray", RayCluster(workers=1))):
            few, many = (once(work[count], cluster) for count in (FEW, MANY))
            unit = (many.cpu - few.cpu) / (MANY - FEW)
            row[name] = {"cpu": unit, "between": many.between, "around": few.cpu - unit}
            print(f"{name}: {json.dumps(row[name])}", flush=True)
        rows.append(row)
    for kind in ("cpu", "between", "around"):
        more = [row["ray"][kind] - row["process"][kind] for row in rows]
        middle = statistics.median(more)
        print(f"{kind}: {middle:+.2f} s ({min(more):+.2f} to {max(more):+.2f}), {middle / UNIT:+.1%} of {UNIT:.0f} s")


def once(work: workload.Work, cluster: RayCluster | None) -> Cost:
    out = workload.ROOT / "ray-overhead"
    shutil.rmtree(out, ignore_errors=True)
    meter = Meter()
    how = {"cluster": cluster, "on_progress": meter.look if cluster else lambda _: None}
    run = trace(Lineage.open(work.folder), [Concept.from_file(work.texts)], out, TraceSettings(untrained=False), **how)
    visits = run.ledger()
    ends = [datetime.fromisoformat(visit["at"]).timestamp() for visit in visits]
    busy = sum(sum(visit["seconds"].values()) for visit in visits[1:])
    return Cost(meter.cpu(), (ends[-1] - ends[0] - busy) / max(1, len(visits) - 1))


if __name__ == "__main__":
    main()
