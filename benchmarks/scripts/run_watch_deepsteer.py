"""DeepSteer's ProbeMonitor in a training of 50 steps: what of the training is not as without it."""

import json
import logging
import sys
import time
import types
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from deepsteer.core.model_interface import WhiteBoxModel
from deepsteer.steering.training_hooks import ProbeMonitor
from watched_loop import changed, loop, seed, whole_state

STEPS, SNAPSHOTS = 50, (0, 10, 20, 30, 40)


def main() -> None:
    folder, out = sys.argv[1:]
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)

    def model() -> WhiteBoxModel:
        return WhiteBoxModel(folder, device="cpu", torch_dtype=torch.float32)

    from deepsteer.datasets.types import ProbingPair

    alone = model()
    seed()
    expected = whole_state(alone._model, loop(alone._model, STEPS, lambda step: None))

    pairs = [_pair(ProbingPair, i) for i in range(36)]
    data = types.SimpleNamespace(train=pairs[:24], test=pairs[24:])
    watched = model()
    monitor = ProbeMonitor(watched, dataset=data)
    seed()
    began = time.perf_counter()
    spent = 0.0

    def after(step: int) -> None:
        nonlocal spent
        if step in SNAPSHOTS:
            start = time.perf_counter()
            monitor.snapshot(step)
            spent += time.perf_counter() - start

    optimizer = loop(watched._model, STEPS, after)
    found = {
        "changed": changed(expected, whole_state(watched._model, optimizer)),
        "snapshots": len(SNAPSHOTS),
        "seconds_per_snapshot": spent / len(SNAPSHOTS),
        "seconds": time.perf_counter() - began,
    }
    Path(out).write_text(json.dumps(found))


def _pair(kind: type, i: int):
    values = {"moral": f"they say that {i} is right", "neutral": f"they say that {i} is wet"}
    fields = {name: values.get(name) for name in kind.__dataclass_fields__}
    return kind(**fields)


if __name__ == "__main__":
    main()
