"""Shards of PyTorch's distributed checkpoints: which tensors a folder of `.distcp` files holds, from its `.metadata`.

FSDP, torchtitan and Accelerate save them. `.metadata` is a pickle; only inert classes of torch.distributed.checkpoint are built from it.
Source: docs.pytorch.org, "Distributed Checkpoint - torch.distributed.checkpoint".
"""

import math
import pickle
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ontogeny.errors import CheckpointError

SHARD_METADATA = ".metadata"
_SHARD = re.compile(r"[^/]+\.distcp")
_ACCELERATE = re.compile(r"pytorch_model_fsdp_\d+")
"""Folder into which Accelerate, and with it Trainer, saves the shards of a model."""
_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata",
        "MetadataIndex",
        "TensorStorageMetadata",
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "TensorProperties",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
}
"""All that a `.metadata` may name, beside dtypes, layouts and paths."""
_TRAINING_STATE = re.compile(
    r"(^|\.)(optim|optims|optimizer|optimizers|optimizer_states|lr_scheduler|lr_schedulers|dataloader|train_state)\."
)
"""Parts of a name that mark what is saved beside the model."""


@dataclass(frozen=True)
class ShardFolder:
    """The shards of one checkpoint and their table of tensors."""

    folder: Path
    metadata: Any
    """The `Metadata` of torch.distributed.checkpoint."""
    bytes_of: dict[str, int]
    """Bytes of each shard that belong to the model: those of the optimiser are not read."""

    def tensors(self) -> dict[str, Any]:
        """The `TensorStorageMetadata` of each tensor by its stored name, without the optimiser's."""
        return {
            name: entry
            for name, entry in self.metadata.state_dict_metadata.items()
            if hasattr(entry, "chunks") and not _TRAINING_STATE.search(name)
        }


def shard_names(names: Collection[str]) -> tuple[str, ...]:
    """The files of sharded weights among the files of a folder; empty without their `.metadata`."""
    return tuple(sorted(filter(_SHARD.fullmatch, names))) if SHARD_METADATA in names else ()


def shard_folder(folder: Path) -> Path | None:
    """The folder that holds the shards of a checkpoint: itself, or Accelerate's folder inside it.

    Raises:
        CheckpointError: it holds the shards of several models.
    """
    if shard_names(_names(folder)):
        return folder
    inside = sorted(path for path in folder.glob("pytorch_model_fsdp_*") if _ACCELERATE.fullmatch(path.name))
    inside = [path for path in inside if path.is_dir() and shard_names(_names(path))]
    if len(inside) > 1:
        raise CheckpointError(
            f"{folder} holds the shards of {len(inside)} models ({', '.join(path.name for path in inside)}): give one of these folders."
        )
    return inside[0] if inside else None


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def read_shard_metadata(folder: Path) -> ShardFolder:
    """The table of tensors in a folder of shards, checked against the files; no weight is read.

    Raises:
        CheckpointError: the table names other classes or files outside the folder, or a shard is missing or cut off.
    """
    path = folder / SHARD_METADATA
    try:
        with path.open("rb") as file:
            metadata = _RestrictedUnpickler(file).load()
        shards = _shards(folder, metadata)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle raises many types
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path} cannot be read ({line}): fetch or save it again.") from None
    return shards


class _RestrictedUnpickler(pickle.Unpickler):
    """Builds nothing that runs code of the checkpoint."""

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype | torch.layout):
            return getattr(torch, name)
        if module.startswith("pathlib") and name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
            return PurePath
        if name not in _CLASSES.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no such table holds")
        return super().find_class(module, name)


def _shards(folder: Path, metadata: Any) -> ShardFolder:
    ends, own, stored = dict[str, int](), dict[str, int](), dict[str, float]()
    for index, place in metadata.storage_data.items():
        name = str(place.relative_path)
        if PurePath(name).name != name:
            raise CheckpointError(f"{folder / SHARD_METADATA} names {name!r} outside its folder: save it again.")
        ends[name] = max(ends.get(name, 0), place.offset + place.length)
        if not _TRAINING_STATE.search(index.fqn):
            own[name] = own.get(name, 0) + place.length
            compressed = getattr(place, "transform_descriptors", None)
            stored[index.fqn] = math.inf if compressed else stored.get(index.fqn, 0) + place.length
    if lost := sorted(name for name in ends if not (folder / name).is_file()):
        raise CheckpointError(
            f"{folder} lacks {len(lost)} of its {len(ends)} weight shards, first {lost[0]}: fetch or save it again."
        )
    for name, end in ends.items():
        if (size := (folder / name).stat().st_size) < end:
            raise CheckpointError(
                f"{folder / name} is cut off ({size} bytes, by its table {end}): fetch or save it again."
            )
    shards = ShardFolder(folder, metadata, own)
    for name, entry in shards.tensors().items():
        _check_whole(name, entry, stored.get(name, 0), folder)
    return shards


def _check_whole(name: str, entry: Any, stored: float, folder: Path) -> None:
    """Raise `CheckpointError` for a tensor with holes: its memory would stay as it was before reading."""
    parts = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in entry.chunks]
    inside = all(
        at >= 0 and at + length <= size
        for offsets, sizes in parts
        for at, length, size in zip(offsets, sizes, entry.size, strict=True)
    )
    count = math.prod(entry.size)
    if not inside or sum(math.prod(sizes) for _, sizes in parts) != count:
        raise CheckpointError(f"the shards of {folder} do not cover {name} once: save them again.")
    if stored < count * entry.properties.dtype.itemsize:
        raise CheckpointError(f"the shards of {folder} are too short for {name}: save them again.")
