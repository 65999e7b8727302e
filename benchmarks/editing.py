"""Closed forms of the editors compared with the bare linear solve of the same system, and a whole edit at the study's tiny size.

Run: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/editing.py`. Random second moments of full rank and random keys in float64. The bare
solve is the paper's formula in one line without checks: Cholesky factor and back substitution, or `torch.linalg.solve` of a matrix that is
ready where it is not symmetric. Rounds are interleaved and each ratio is taken inside its round; median, least and greatest are given. A
whole edit has the gradient descent for the value, at its full number of steps, since the model is untrained. CPU seconds.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ontogeny.editing.closed_forms import alphaedit_keys, memit_keys, null_space, rome_keys
from ontogeny.models.model import model_from_network
from ontogeny.studies.knowledge_editing import PRESETS
from ontogeny.studies.knowledge_editing._edits import counterfactual_targets
from ontogeny.studies.knowledge_editing._panel import Panel
from ontogeny.studies.knowledge_editing._settings import METHODS
from ontogeny.studies.knowledge_editing._training import make_bench, recipe
from ontogeny.worlds import entity_graph

FACTS, PRESERVATION, DAMPING, SHARE = 4, 0.1, 0.1, 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="96,512,1024")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for inside in map(int, options.sizes.split(",")):
        for name, (ours, bare) in programs(inside).items():
            print(json.dumps({"editor": name, "neurons": inside, **compare(ours, bare, options.rounds)}), flush=True)
    print(json.dumps({"whole edit, CPU seconds": whole_edits()}))


def programs(inside: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Our closed form, and the solve alone, by editor."""
    draw = torch.Generator().manual_seed(0)
    texts = torch.randn(2 * inside, inside, generator=draw, dtype=torch.float64)
    moment = texts.T @ texts / len(texts)
    keys = torch.randn(inside, FACTS, generator=draw, dtype=torch.float64)
    previous, space = moment[:, :0], null_space(moment, SHARE)
    within = space.projector @ keys
    system = space.projector @ (keys @ keys.T)
    system.diagonal().add_(DAMPING * float(within.square().sum(0).mean()))
    return {
        "rome": (lambda: rome_keys(moment, keys[:, 0]), lambda: cholesky_solve(moment, keys[:, :1])),
        "memit": (
            lambda: memit_keys(moment, keys, PRESERVATION),
            lambda: cholesky_solve(PRESERVATION * inside * moment + keys @ keys.T, keys),
        ),
        "alphaedit": (
            lambda: alphaedit_keys(space.projector, previous, keys, DAMPING),
            lambda: torch.linalg.solve(system, within),
        ),
    }


def cholesky_solve(matrix: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return torch.cholesky_solve(keys, torch.linalg.cholesky(matrix))


def compare(ours: Callable[[], object], bare: Callable[[], object], rounds: int) -> dict[str, float]:
    """CPU seconds of both, and their ratio."""
    repeats = max(1, round(0.05 / max(cpu_seconds(bare, 1), 1e-5)))
    pairs = [(cpu_seconds(ours, repeats), cpu_seconds(bare, repeats)) for _ in range(rounds)]
    ratios = [mine / theirs for mine, theirs in pairs]
    return {
        "ms": round(1000 * statistics.median(mine for mine, _ in pairs) / repeats, 3),
        "bare solve, ms": round(1000 * statistics.median(theirs for _, theirs in pairs) / repeats, 3),
        "ratio, median": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "greatest": round(max(ratios), 2),
    }


def cpu_seconds(program: Callable[[], object], repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        program()
    return time.process_time() - began


def whole_edits() -> dict[str, float]:
    """Median CPU seconds of one edit of the study's tiny model, by method."""
    settings = PRESETS["tiny"]
    world = entity_graph.make(
        entity_graph.Config(entities=settings.entities, orders=3, hops=settings.hops, composed=settings.composed)
    )
    torch.manual_seed(0)
    network = recipe(world, settings, settings.steps, 0).make().eval()
    panel = Panel.of(world, settings, 0)
    bench = make_bench(model_from_network(network, entity_graph.tokenizer(world)), panel, settings, 0)
    targets = counterfactual_targets(bench, np.random.default_rng(0))[4]
    seconds = {m: [cpu_seconds(functools.partial(bench.edit, m, t, 0), 1) for t in targets] for m in METHODS}
    return {method: round(statistics.median(measured), 3) for method, measured in seconds.items()}


if __name__ == "__main__":
    main()
