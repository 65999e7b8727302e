"""LoRA adapters: merge the folder of a PEFT adapter into its base model, in memory.

W + s·BA for each matrix, with s = alpha/r, or alpha/√r (arXiv:2312.03732); DoRA rescales the rows of that sum (arXiv:2402.09353).
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ontogeny.errors import CheckpointError
from ontogeny.lineage import weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MERGE_ADVICE = "merge it into its base model with PEFT's merge_and_unload and save that"
_NAME = re.compile(
    r"(?P<module>.*?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(?:\.[^.]+)??(?:\.weight)?"
)
"""Module and part of a LoRA tensor, with or without the adapter's name."""


@torch.no_grad()
def merge_adapter(network: "PreTrainedModel", folder: Path, *, allow_pickle: bool = False) -> None:
    """Merge the LoRA adapter of a folder into its base model, in place; all of its tensors must find their place.

    Raises:
        CheckpointError: it is another kind of adapter, or a tensor does not fit the base model.
    """
    config = weight_files.read_json(folder / weight_files.ADAPTER_CONFIG)
    _check_kind(config, folder)
    updates: dict[str, dict[str, Tensor]] = defaultdict(dict)
    whole: dict[str, Tensor] = {}
    for stored, tensor in _read_tensors(folder, allow_pickle).items():
        name = stored.removeprefix("base_model.model.")
        if match := _NAME.fullmatch(name):
            updates[match["module"]][match["part"].replace("lora_embedding", "lora")] = tensor.float()
        else:
            whole[re.sub(r"\.(base_layer|modules_to_save(\.[^.]+)?|original_module)(?=\.)", "", name)] = tensor
    try:
        for name, tensor in whole.items():
            _replace(network, name, tensor, folder)
        for module, parts in updates.items():
            _add(network, module, parts, _scale(config, module, parts), folder)
    except (TypeError, ValueError, AttributeError, ArithmeticError, IndexError, RuntimeError, re.error) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"the adapter of {folder} cannot be merged ({line}): save it again.") from None
    network.tie_weights()


def _check_kind(config: Mapping[str, Any], folder: Path) -> None:
    kind = str(config.get("peft_type", "LORA"))
    if kind.upper() != "LORA":
        raise CheckpointError(f"{folder} is an adapter of the kind {kind}, and only LoRA can be read: {_MERGE_ADVICE}.")
    for option in ("target_parameters", "trainable_token_indices", "lora_bias", "layer_replication"):
        if config.get(option):
            raise CheckpointError(
                f"{folder} is a LoRA adapter with {option}, which cannot be merged here: {_MERGE_ADVICE}."
            )


def _read_tensors(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    (file,) = weight_files.check_model_folder(folder, allow_pickle=allow_pickle).weights
    path = folder / file.name
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Reached with `allow_pickle` only, and restricted to tensors.
        tensors: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251
        return tensors
    except Exception as error:  # broken files raise many types
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"the weights of {path} cannot be read ({line}): fetch or save them again.") from None


def _scale(config: Mapping[str, Any], module: str, parts: Mapping[str, Tensor]) -> float:
    """Alpha over the rank, or over its root; both may have patterns of module names."""
    rank = parts["lora_A"].shape[0] if "lora_A" in parts else 1
    alpha = _of_module(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_module(patterns: object, module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's name, as PEFT matches it."""
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            return value
    return default


def _replace(network: "PreTrainedModel", name: str, tensor: Tensor, folder: Path) -> None:
    """Replace a tensor that the adapter saves whole; more rows of an embedding are added first."""
    module, _, parameter = name.rpartition(".")
    owner = _module(network, module, name, folder)
    old = getattr(owner, parameter, None)
    tables = (network.get_input_embeddings(), network.get_output_embeddings())
    if isinstance(old, Tensor) and old.shape != tensor.shape and owner in tables and old.shape[1:] == tensor.shape[1:]:
        network.resize_token_embeddings(tensor.shape[0], mean_resizing=False)
        old = getattr(_module(network, module, name, folder), parameter)
    if not isinstance(old, Tensor) or old.shape != tensor.shape:
        raise _no_place(name, folder)
    old.copy_(tensor)


def _add(network: "PreTrainedModel", name: str, parts: Mapping[str, Tensor], scale: float, folder: Path) -> None:
    """Add a low-rank update to the weight of a module."""
    module = _module(network, name, name, folder)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not {"lora_A", "lora_B"} <= set(parts):
        raise _no_place(name, folder)
    if parts["lora_A"].shape[0] != parts["lora_B"].shape[1]:
        raise _no_place(name, folder)
    update = scale * (parts["lora_B"] @ parts["lora_A"])
    # nn.Linear stores [out, in], like the update; GPT-2's Conv1D and embeddings store the transpose.
    flipped = not isinstance(module, nn.Linear)
    base = weight.float().T if flipped else weight.float()
    if base.shape != update.shape:
        raise _no_place(name, folder)
    merged = base + update
    if "lora_magnitude_vector" in parts:
        merged = merged * (parts["lora_magnitude_vector"].reshape(-1, 1) / merged.norm(dim=1, keepdim=True))
    weight.copy_(merged.T if flipped else merged)


def _module(network: nn.Module, name: str, tensor: str, folder: Path) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError:
        raise _no_place(tensor, folder) from None


def _no_place(name: str, folder: Path) -> CheckpointError:
    return CheckpointError(
        f"the adapter of {folder} changes {name}, which has no place of that shape in its base model: correct "
        "base_model_name_or_path in its adapter_config.json."
    )
