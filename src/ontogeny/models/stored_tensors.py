"""Tensors in weight files and in the network: every stored tensor must have its place, or is named.

A tensor without a place changes the model that was trained (biases, layers, matrices of another method), unless it belongs to a part
that activations do not pass through, such as a value head.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ontogeny.lineage import weight_files
from ontogeny.storage.merging import read_stored_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BUFFERS = re.compile(
    r".*\b(inv_freq|position_ids|masked_bias|attn\.bias|attention\.bias|causal_mask|decoder\.version|alibi|"
    r"embed_positions\.weights|attn_mask)"
)
"""Constants that earlier versions of transformers saved with the weights."""
_NORM_GAIN = re.compile(r"(?:norm|(?:^|[._])ln_?\w{0,8})\.weight$|LayerNorm\.weight$", re.IGNORECASE)
_REAL_DTYPES = ("F64", "F32", "F16", "BF16")
_REAL_TORCH_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class UnusedTensors:
    """Stored tensors without a place in the network."""

    inside: tuple[str, ...] = ()
    """Below a module that activations pass through: the model is not the one that was trained."""
    outside: tuple[str, ...] = ()
    """Of other parts, such as a value head or a classifier."""


def unused_tensors(network: "PreTrainedModel", unexpected: Collection[str]) -> UnusedTensors:
    """Sort the tensors that found no place in the network, without constants that are never loaded."""
    body, prefix = network.base_model, f"{network.base_model_prefix}."
    passed = {name for name, _ in body.named_children()} | {name for name, _ in network.named_children()}
    ignored = [re.compile(pattern) for pattern in network._keys_to_ignore_on_load_unexpected or ()]
    inside, outside = list[str](), list[str]()
    for name in sorted(unexpected):
        if _BUFFERS.fullmatch(name) or any(pattern.search(name) for pattern in ignored):
            continue
        first = name.removeprefix(prefix).split(".")[0]
        (inside if first in passed else outside).append(name)
    return UnusedTensors(tuple(inside), tuple(outside))


def unused_by_name(network: "PreTrainedModel", stored: Collection[str]) -> UnusedTensors:
    """Tensors without a place, from names alone; none where transformers renames tensors, which only loading can tell."""
    names = set(weight_files.unwrapped_names(stored).values())
    prefix = f"{network.base_model_prefix}."
    if not any(name.startswith(prefix) for name in names):  # the body alone was saved
        names = {prefix + name if not name.startswith("lm_head") else name for name in names}
    known = set(network.state_dict())
    shared = getattr(network.config.get_text_config(), "tie_word_embeddings", False)
    tied = set(getattr(network, "_tied_weights_keys", None) or ()) if shared else set()
    lost = {name for name in known - names if name not in tied}
    blocks = {name for name in lost if name.startswith(prefix)}
    unused = unused_tensors(network, names - known)
    return UnusedTensors(() if blocks else unused.inside, () if lost else unused.outside)


def integer_tensors(network: nn.Module, dtypes: Mapping[str, str]) -> list[str]:
    """Weights that are stored as integers or as scaled floats, which are not weights before they are multiplied by their scale.

    Args:
        dtypes: Dtype of each stored tensor, as a safetensors header spells it.
    """
    state = network.state_dict()
    return sorted(
        name
        for stored, name in weight_files.unwrapped_names(dtypes).items()
        if dtypes[stored] not in _REAL_DTYPES and name in state and state[name].dtype in _REAL_TORCH_DTYPES
    )


def stored_dtypes(folder: Path) -> dict[str, str]:
    """Dtype of each tensor in the safetensors files of a checkpoint folder; empty for a pickle.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    dtypes: dict[str, str] = {}
    for file in weight_files.check_model_folder(folder, allow_pickle=True).weights:
        if file.name.endswith(".safetensors"):
            table = weight_files.read_safetensors_header(folder / file.name)
            dtypes |= {name: str(entry["dtype"]) for name, entry in table.items() if name != "__metadata__"}
    return dtypes


def looks_untrained(folder: Path) -> bool:
    """Whether weights look freshly initialised: the gain of every normalisation is constant, which no training leaves so.

    True where it is unknown: without such gains, or for a pickle. An adapter is not a random model.
    """
    if weight_files.is_adapter([path.name for path in folder.iterdir()]):
        return False
    files = weight_files.check_model_folder(folder, allow_pickle=True).weights
    for path in (folder / file.name for file in files if file.name.endswith(".safetensors")):
        # Reads the gains only: mapping a file of many gigabytes into memory is not allowed everywhere.
        gains = list(filter(_NORM_GAIN.search, weight_files.read_safetensors_header(path)))
        if not all(_is_constant(gain.float()) for gain in read_stored_tensors(path, gains).values()):
            return False
    return True


def network_looks_untrained(network: nn.Module) -> bool:
    """`looks_untrained` of a network in memory."""
    gains = (gain for name, gain in network.named_parameters() if _NORM_GAIN.search(name))
    return all(_is_constant(gain.detach()) for gain in gains)


def _is_constant(gain: torch.Tensor) -> bool:
    return not gain.numel() or bool((gain == gain.reshape(-1)[0]).all())
