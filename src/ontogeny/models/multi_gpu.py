"""Placement of a network: on one device, or with its blocks spread over the GPUs of one machine by accelerate. All hooks keep working.

The device `auto` is the fastest one of this machine, `all` are its GPUs together; reads are then moved to the device of the embedding.
"""

import importlib
from typing import TYPE_CHECKING, Any

import torch

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AUTO_DEVICE, ALL_GPUS = "auto", "all"


def resolve_device(device: str) -> str:
    """The fastest device of this machine for `auto`: cuda, else mps, else cpu; any other device as it is."""
    if device != AUTO_DEVICE:
        return device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def place_network(network: "PreTrainedModel", device: str) -> "PreTrainedModel":
    """Move a network to one device, or with `all` spread it over all visible GPUs.

    Raises:
        BadInput: accelerate is not installed, or the network does not fit on the GPUs.
    """
    if device != ALL_GPUS:
        moved: PreTrainedModel = network.to(resolve_device(device))
        return moved
    accelerate = _accelerate()
    unsplit = list(network._no_split_modules or ())  # a residual block must stay on one device
    room = accelerate.utils.get_balanced_memory(network, dtype=network.dtype, no_split_module_classes=unsplit)
    places = accelerate.infer_auto_device_map(
        network, max_memory=room, dtype=network.dtype, no_split_module_classes=unsplit
    )
    if torch.cuda.is_available() and (left := [name for name, place in places.items() if place in ("cpu", "disk")]):
        raise BadInput(
            f"the network must fit on the GPUs, but {len(left)} of its parts do not fit on {torch.cuda.device_count()}: raise "
            "`gpus_per_model`, or set `dtype` to bfloat16."
        )
    spread: PreTrainedModel = accelerate.dispatch_model(network, places)
    return spread


def input_device(device: str) -> str:
    """Device of tensors outside the network."""
    if device != ALL_GPUS:
        return resolve_device(device)
    return "cuda" if torch.cuda.is_available() else "cpu"


def _accelerate() -> Any:
    try:
        return importlib.import_module("accelerate")
    except ImportError:
        raise BadInput(
            "a network on several GPUs needs accelerate: install it with `pip install 'ontogeny[ray]'`."
        ) from None
