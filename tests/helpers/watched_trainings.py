"""Short trainings with dropout on, with or without a watcher, and their whole state at the end."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ontogeny.data.concept import Concept
from ontogeny.jobs.watch.undisturbed import random_state
from ontogeny.measurements.settings import TraceSettings
from tests.helpers.planted_lineages import rows, write
from tests.helpers.tiny_models import tiny_model

LIGHT = TraceSettings(
    sites="resid", fits=("logistic", "mass_mean"), kernels=("linear",), resamples=100, permutations=100
)


def concept(folder: Path, name: str = "coin", *, characters: int = 36, **more: Any) -> Concept:
    """The coin of `planted_lineages`, as a file's concept."""
    write(folder / f"{name}.csv", rows(characters=characters, **more))
    return Concept.from_file(folder / f"{name}.csv")


def start(family: str = "gpt2") -> nn.Module:
    """A tiny network with dropout, of which one block stays in evaluation mode; all global generators are set."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    network = tiny_model(family)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    network.train()
    network.get_submodule("transformer.h.0").eval()
    torch.manual_seed(0)
    return network


def loop(network: nn.Module, steps: int, after: Callable[[int], Any] = lambda step: None) -> torch.optim.Optimizer:
    """Train on random tokens; `after` is called before the first step and after each one."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    after(0)
    for step in range(1, steps + 1):
        ids = torch.randint(3, 200, (4, 16))
        network(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after(step)
    return optimizer


def trained(steps: int, after: Callable[[int], Any] = lambda step: None) -> dict[str, Any]:
    """The whole state after `loop` on a fresh network."""
    network = start()
    return whole_state(network, loop(network, steps, after))


def whole_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Everything of a training that a watcher must leave as it is."""
    return {
        "weights": dict(network.state_dict()),
        "buffers": dict(network.named_buffers()),
        "gradients": {name: p.grad for name, p in network.named_parameters()},
        "optimizer": optimizer.state_dict()["state"],
        "random": random_state(),
        "modes": [module.training for module in network.modules()],
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in network.modules()
        ],
        "forwards": ["forward" in vars(module) for module in network.modules()],
    }


def differences(a: Any, b: Any, name: str = "state") -> list[str]:
    """Names of the parts in which two states are not equal bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{name}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [found for i in range(len(a)) for found in differences(a[i], b[i], f"{name}.{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        equal = a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        equal = np.array_equal(a, b)
    else:
        equal = a == b
    return [] if equal else [name]
