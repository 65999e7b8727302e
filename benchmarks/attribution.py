"""Our adjoint of AdamW against AdamW-influence of dattri-llm, on the same recorded run of a small network in two stages.

Both give the effect of half of the examples of each stage's batches on a loss (all gradients together have none: Adam does not see their
scale). With the rows of our Gauss–Newton matrix in place of its empirical Fisher their
sweep must give our numbers; with the Fisher it is their own method, whose distance is printed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

import environments

from ontogeny.attribution.optimizer_steps import adjoint_step, initial_state
from ontogeny.attribution.path import PathStage, TrainingPath, record_path
from ontogeny.attribution.recorded_tiers import behaviour_gradient
from ontogeny.training.loop import TrainingConfig

HERE = Path(__file__).parent
ROWS, FEATURES, CLASSES = 8, 6, 3


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, FEATURES, generator=generator)
    y = torch.stack([(x[:, 0] > 0).long(), (x[:, 1] > 0).long() + 1])
    config = TrainingConfig(30, 0.01, warmup=3, weight_decay=0.0, clip=1e9)

    def loss(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(network(batch[0]), batch[1])

    def batches(stage: int):
        return lambda step: (x[(rows := (torch.arange(ROWS) * 7 + 3 * step) % 64)], y[stage][rows])

    stages = [PathStage(f"stage {i}", loss, batches(i), config) for i in range(2)]
    path = record_path(lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES)), stages)

    def behaviour(network: nn.Module) -> torch.Tensor:
        return loss(network, (x, y[0]))

    slope = behaviour_gradient(path, behaviour)
    removed = [
        path.network.gradient(s.state.parameters, loss, (s.batch[0][: ROWS // 2], s.batch[1][: ROWS // 2])) / 2
        for s in path.steps
    ]
    ours = {c: removed_examples(path, slope, removed, c) for c in ("gauss_newton", "hessian")}
    try:
        theirs = run_peer(path, slope, removed, loss)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"dattri-llm fails: {str(error)[:200]}")
        return
    print("| effect of half of the examples of | stage 1 | stage 2 |\n|---|---|---|")
    for name, scores in (
        ("ours, Gauss–Newton", ours["gauss_newton"]),
        ("dattri-llm 0.1.0, with our curvature", theirs["given curvature"]),
        ("dattri-llm 0.1.0, empirical Fisher", theirs["fisher"]),
        ("ours, Hessian", ours["hessian"]),
    ):
        print(f"| {name} | {scores[0]:+.6f} | {scores[1]:+.6f} |")
    apart = (
        np.abs(np.array(ours["gauss_newton"]) - theirs["given curvature"]).max() / np.abs(ours["gauss_newton"]).max()
    )
    print(f"largest difference with the same curvature: {apart:.1e} of the largest effect")
    if apart > 1e-3:
        sys.exit("the two sweeps disagree")


def removed_examples(
    path: TrainingPath, slope: torch.Tensor, removed: list[torch.Tensor], curvature: str
) -> list[float]:
    """Effect of examples of each stage: the adjoint's slope in the gradient of a step times their share of that gradient."""
    scores, adjoint, later = [0.0] * len(path.stages), initial_state(slope), len(path.stages) - 1
    for step, share in zip(reversed(path.steps), reversed(removed), strict=True):
        if step.stage != later:
            adjoint, later = initial_state(adjoint.parameters), step.stage
        network, loss, seen = path.network, path.stages[step.stage].loss, []
        multiply = network.gauss_newton_product if curvature == "gauss_newton" else network.hessian_product

        def product(direction, step=step, loss=loss, seen=seen, multiply=multiply):
            seen.append(direction)
            return multiply(step.state.parameters, loss, step.batch, direction)

        adjoint = adjoint_step(adjoint, step.state, step.gradient, product, step.settings)
        scores[step.stage] += step.settings.clip * float(seen[0].double() @ share.double())
    return scores


def run_peer(path: TrainingPath, slope: torch.Tensor, removed: list[torch.Tensor], loss) -> dict[str, list[float]]:
    """Run their sweep on the recorded steps.

    Raises:
        RuntimeError: it cannot be installed, or fails.
    """
    python = environments.python_of("dattri_llm")
    flat, steps = path.network, path.steps
    after = [path.after(index) for index in range(len(steps))]
    samples, factors = [], []
    for step in steps:
        at, (inputs, labels) = step.state.parameters, step.batch
        singles = [flat.gradient(at, loss, (inputs[i : i + 1], labels[i : i + 1])) for i in range(len(labels))]
        samples.append(torch.stack(singles))
        eye = torch.eye(len(at))
        matrix = torch.stack([flat.gauss_newton_product(at, loss, step.batch, row) for row in eye]).double()
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        factors.append((values.clamp(min=0).sqrt()[:, None] * vectors.T).float())
    arrays = {
        "slope": slope,
        "removed": torch.stack(removed),
        "gradient": torch.stack([step.gradient for step in steps]),
        "first": torch.stack([state.first for state in after]),
        "second": torch.stack([state.second for state in after]),
        "rate": torch.tensor([step.settings.rate for step in steps], dtype=torch.float64),
        "number": torch.tensor([step.settings.number for step in steps]),
        "stage": torch.tensor([step.stage for step in steps]),
        "samples": torch.stack(samples),
        "factors": torch.stack(factors),
        "adam": torch.tensor([*steps[0].settings.betas, steps[0].settings.eps, 0.0], dtype=torch.float64),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "path.npz"
        np.savez(file, **{name: value.numpy() for name, value in arrays.items()})
        command = [str(python), str(HERE / "scripts" / "run_dattri_llm.py"), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not results:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise RuntimeError(said[-1] if said else f"exit {done.returncode}")
    return json.loads(results[0].removeprefix("RESULT "))


if __name__ == "__main__":
    main()
