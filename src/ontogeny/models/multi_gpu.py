"""A network on several GPUs of one machine, some blocks on each (accelerate's hooks): one process, and all hooks of a model keep working.

The device is called `auto`. Reads come to the device of the embedding, wherever they were made.
"""

import importlib
from typing import Any

import torch
from transformers import PreTrainedModel

from ontogeny.errors import BadInput

_AUTO_DEVICE = "auto"


def place_network(network: PreTrainedModel, device: str) -> PreTrainedModel:
    """On one device, or over all that are visible.

    Raises:
        BadInput: accelerate is not installed, or the network has no room on the GPUs.
    """
    if device != _AUTO_DEVICE:
        moved: PreTrainedModel = network.to(device)
        return moved
    accelerate = _accelerate()
    whole = list(network._no_split_modules or ())  # a block whose input is added to its output stays in one piece
    room = accelerate.utils.get_balanced_memory(network, dtype=network.dtype, no_split_module_classes=whole)
    places = accelerate.infer_auto_device_map(
        network, max_memory=room, dtype=network.dtype, no_split_module_classes=whole
    )
    if torch.cuda.is_available() and (left := [name for name, place in places.items() if place in ("cpu", "disk")]):
        raise BadInput(
            f"{len(left)} parts of the network have no room on {torch.cuda.device_count()} GPUs. Raise --gpus-per-model, or "
            "choose --dtype bfloat16."
        )
    spread: PreTrainedModel = accelerate.dispatch_model(network, places)
    return spread


def input_device(device: str) -> str:
    """Where tensors beside the network stand."""
    if device != _AUTO_DEVICE:
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _accelerate() -> Any:
    try:
        return importlib.import_module("accelerate")
    except ImportError:
        raise BadInput(
            "a network on several GPUs needs accelerate. Install it with: pip install 'ontogeny[ray]'"
        ) from None
