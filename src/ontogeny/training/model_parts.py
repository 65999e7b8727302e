"""Parts of a language model by name, to freeze or to copy from another run: `embed`, `blocks.3.attn`, `blocks.*.mlp`, `norms`, `unembed`.

Every parameter is in exactly one part; a tied embedding is in `embed`. Blocks count from 1, as sites do. Training one component at a
time: arXiv:2410.22244.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ontogeny import architectures
from ontogeny.architectures import Architecture
from ontogeny.errors import BadInput, unknown_name
from ontogeny.lineage import weight_files


def model_parts(network: PreTrainedModel) -> dict[str, tuple[str, ...]]:
    """Names of the parameters of each part, in the order of the network.

    Raises:
        BadInput: the model has no architecture table.
    """
    table = architectures.architecture_of(network)
    head = _path_of(network, network.get_output_embeddings())
    parts: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        parts.setdefault(_part(name, table, head), []).append(name)
    return {part: tuple(names) for part, names in parts.items()}


def _part(name: str, table: Architecture, head: str) -> str:
    inside = _is_below(name, table.blocks)
    if inside is not None:
        number, _, rest = inside.partition(".")
        for part, path in (("attn", table.attn), ("mlp", table.mlp)):
            if _is_below(rest, path) is not None:
                return f"blocks.{int(number) + 1}.{part}"
        return "norms"
    for part, path in (("embed", table.embed), ("norms", table.final_norm), ("unembed", head)):
        if path and _is_below(name, path) is not None:
            return part
    return "positions"


def _is_below(name: str, path: str) -> str | None:
    return name[len(path) + 1 :] if name.startswith(f"{path}.") else None


def _path_of(network: PreTrainedModel, module: torch.nn.Module | None) -> str:
    return next((name for name, other in network.named_modules() if other is module), "") if module else ""


def matching_parameters(network: PreTrainedModel, patterns: Iterable[str]) -> tuple[str, ...]:
    """Names of the parameters in the parts that match any of the patterns; `blocks.2` is all of block 2.

    Raises:
        BadInput: a pattern matches no part.
    """
    parts = model_parts(network)
    selected: set[str] = set()
    for pattern in patterns:
        matches = [part for part in parts if fnmatchcase(part, pattern) or fnmatchcase(part, f"{pattern}.*")]
        if not matches:
            raise unknown_name("part of this model", pattern, parts)
        selected.update(name for part in matches for name in parts[part])
    return tuple(name for name, _ in network.named_parameters() if name in selected)


def freeze_parts(network: PreTrainedModel, patterns: Iterable[str]) -> None:
    """Freeze the parts that match.

    Raises:
        BadInput: a pattern matches no part.
    """
    parameters = dict(network.named_parameters())
    for name in matching_parameters(network, patterns):
        parameters[name].requires_grad_(False)


@torch.no_grad()
def initialise_parts(network: PreTrainedModel, sources: Mapping[str, Path]) -> None:
    """Copy parts from checkpoints of other runs: `{"blocks.*.attn": folder}`.

    Raises:
        BadInput: a pattern matches no part, a folder has no model, or shapes differ.
    """
    parameters = dict(network.named_parameters())
    for pattern, folder in sources.items():
        other = dict(load_float32(folder).named_parameters())
        for name in matching_parameters(network, [pattern]):
            if name not in other or other[name].shape != parameters[name].shape:
                shape = tuple(other[name].shape) if name in other else "absent"
                raise BadInput(
                    f"{name} must have the shape {tuple(parameters[name].shape)}, got {shape} in {folder}: give a checkpoint of "
                    "the same architecture."
                )
            parameters[name].copy_(other[name])


def load_float32(folder: Path) -> PreTrainedModel:
    """Load the model of a checkpoint folder in float32.

    Raises:
        BadInput: there is no such folder, or the checkpoint is incomplete.
    """
    check_checkpoint(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)


def check_checkpoint(folder: Path) -> None:
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}: give a checkpoint, like run/checkpoint-1000.")
    weight_files.check_model_folder(folder)
