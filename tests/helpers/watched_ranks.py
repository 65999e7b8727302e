"""A training of two processes (DDP, gloo), alone and then watched; one process forks the other."""

import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from ontogeny.data.concept import Concept
from ontogeny.jobs.watch.watcher import Watcher
from tests.helpers.tiny_models import byte_tokenizer
from tests.helpers.watched_trainings import LIGHT, concept, differences, loop, start, whole_state

STEPS = 6
MEASURED = (0, 2, STEPS)


def main() -> None:
    """Fork the second process, train in both, and write what each one saw to `rank-N.json`."""
    home = Path(sys.argv[1])
    coin = concept(home)
    child = os.fork()
    rank = 0 if child else 1
    try:
        result: dict[str, Any] = _train(home, rank, coin)
    except BaseException:
        traceback.print_exc()
        result = {"error": traceback.format_exc()}
    (home / f"rank-{rank}.json").write_text(json.dumps(result))
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def _train(home: Path, rank: int, coin: Concept) -> dict[str, Any]:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{home}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    alone, _ = _state(home, rank, None)
    watched, watcher = _state(home, rank, coin)
    other = [None, None]
    distributed.all_gather_object(other, float(watched["weights"]["lm_head.weight"].sum()))
    distributed.destroy_process_group()
    return {
        "differences": differences(alone, watched),
        "sums": other,
        "measured": watcher.pace.measured if watcher else [],
        "failures": watcher.failures if watcher else 0,
    }


def _state(home: Path, rank: int, coin: Concept | None) -> tuple[dict[str, Any], Watcher | None]:
    network, watcher = start(), None
    torch.manual_seed(rank)  # other texts on each process
    parallel = DistributedDataParallel(network)
    if coin is not None:
        folder = home / f"run-{rank}"
        watcher = Watcher(parallel, byte_tokenizer(), [coin], folder, settings=LIGHT, on_alert="log")
    optimizer = loop(parallel, STEPS, lambda step: watcher.measure(step) if watcher and step in MEASURED else None)
    if watcher:
        watcher.finish(STEPS)
    return whole_state(network, optimizer), watcher
