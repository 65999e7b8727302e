"""What a visit costs more on Ray than in this process: the same checkpoints by both, one worker, one thread.

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/ray_overhead.py` (some minutes). A trace of four checkpoints less one of a single
checkpoint is three units: what starts and ends a run falls out, and stands beside. CPU seconds are of all processes together, Ray's too.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import psutil
import torch
import workload

from ontogeny import Concept, Lineage
from ontogeny.lab.cluster import Cluster
from ontogeny.lab.settings import Settings
from ontogeny.lab.trace import trace

FEW, MANY = 1, 4
UNIT = 20.0
"""Seconds of the unit that the overhead is held against."""


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def __truediv__(self, count: int) -> "Cost":
        return Cost(self.wall / count, self.cpu / count)


class Meter:
    """CPU seconds of this process and of all below it, the dead ones as they were last seen."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}
        self.began, self.before = time.perf_counter(), time.process_time()

    def look(self, _: object = None) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                used = process.cpu_times()
                self.seen[process.pid] = used.user + used.system
            except psutil.NoSuchProcess:
                continue

    def cost(self) -> Cost:
        return Cost(time.perf_counter() - self.began, time.process_time() - self.before + sum(self.seen.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    torch.set_num_threads(1)
    work = {count: workload.make("70m", told.texts, count) for count in (FEW, MANY)}
    once(work[FEW], None)  # what is done once a process
    rows = []
    for _ in range(told.rounds):
        row = {}
        for name, cluster in (("process", None), ("ray", Cluster(workers=1))):
            few, many = (once(work[count], cluster) for count in (FEW, MANY))
            unit = (many - few) / (MANY - FEW)
            row[name] = {"unit": vars(unit), "around": vars(few - unit)}
            around = few - unit
            print(f"{name}: a unit {unit.wall:.1f} s wall, {unit.cpu:.1f} s CPU", end="; ")
            print(f"around it {around.wall:.1f} and {around.cpu:.1f}", flush=True)
        rows.append(row)
    for kind in ("wall", "cpu"):
        more = [row["ray"]["unit"][kind] - row["process"]["unit"][kind] for row in rows]
        middle = statistics.median(more)
        print(
            f"{kind}: {middle:+.2f} s a unit ({min(more):+.2f} to {max(more):+.2f}): {middle / UNIT:+.1%} of {UNIT:.0f} s"
        )
    print(json.dumps(rows))


def once(work: workload.Work, cluster: Cluster | None) -> Cost:
    out = workload.ROOT / "ray-overhead"
    shutil.rmtree(out, ignore_errors=True)
    meter = Meter()
    how = {"cluster": cluster, "on_progress": meter.look if cluster else lambda _: None}
    trace(Lineage.open(work.folder), [Concept.from_file(work.texts)], out, Settings(untrained=False), **how)
    return meter.cost()


if __name__ == "__main__":
    main()
