"""Reading a model in training without a trace of it: random numbers, modes, buffers, autocast and compiled calls are as before.

Nothing is copied but the states of the random generators. Weights and gradients are not written; a block in which a weight changed
raises, since a training that was watched would then not be the one that was meant.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

_COMPILED_CALL = "_compiled_call_impl"
_TABLES = (
    "_buffers",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
"""Tables of a module whose entries are restored: transformers leaves hooks where hidden states were asked for, and some positions are
buffers that a longer text replaces."""


class TrainingDisturbed(RuntimeError):
    """A weight of a model in training was written while it was read."""


@contextlib.contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for the block, without autocast and compiled calls; afterwards every state is what it was.

    Every attribute, buffer and hook is restored module by module: a frozen module stays in evaluation mode while the rest is trained.

    Raises:
        TrainingDisturbed: a weight was changed in the block.
    """
    modules = [(module, dict(vars(module)), _tables(module)) for module in network.modules()]
    weights = {name: (parameter, parameter._version) for name, parameter in network.named_parameters()}
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with _same_random_numbers(), torch.autocast(device.type, enabled=False):
        for module, _, _ in modules:
            module.training = False  # not by train(), which some modules override
            if vars(module).get(_COMPILED_CALL) is not None:
                setattr(module, _COMPILED_CALL, None)
        try:
            yield
        finally:
            for module, attributes, tables in modules:
                vars(module).clear()
                vars(module).update(attributes)
                for name, entries in tables.items():
                    vars(module)[name].clear()
                    vars(module)[name].update(entries)
    changed = [name for name, (parameter, version) in weights.items() if parameter._version != version]
    if changed:
        raise TrainingDisturbed(f"reading must not change weights, but {changed[0]} was written")


def _tables(module: nn.Module) -> dict[str, dict[Any, Any]]:
    return {name: dict(vars(module)[name]) for name in _TABLES if name in vars(module)}


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """The generators of Python, NumPy, the CPU and each accelerator in use, restored afterwards."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def random_state() -> dict[str, Any]:
    """State of every global generator that a training may draw from."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 (the global generator of a training)
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Set every global generator to a state from `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])
