"""Multi-GPU placement: spread the blocks of one network over the GPUs of one machine with accelerate. All hooks keep working.

The device is called `auto`. Reads are moved to the device of the embedding.
"""

import importlib
from typing import TYPE_CHECKING, Any

import torch

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AUTO_DEVICE = "auto"


def place_network(network: "PreTrainedModel", device: str) -> "PreTrainedModel":
    """Move a network to one device, or with `auto` spread it over all visible GPUs.

    Raises:
        BadInput: accelerate is not installed, or the network does not fit on the GPUs.
    """
    if device != _AUTO_DEVICE:
        moved: PreTrainedModel = network.to(device)
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
    if device != _AUTO_DEVICE:
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _accelerate() -> Any:
    try:
        return importlib.import_module("accelerate")
    except ImportError:
        raise BadInput(
            "a network on several GPUs needs accelerate: install it with `pip install 'ontogeny[ray]'`."
        ) from None
