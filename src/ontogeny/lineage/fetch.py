"""Fetch a checkpoint: list its files, read its config, fingerprint its weights, download it."""

import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ontogeny.errors import CheckpointError
from ontogeny.lineage import hub, weight_files
from ontogeny.lineage.checkpoint import Checkpoint
from ontogeny.lineage.weight_files import CheckpointFiles

_HASH_WHOLE_BELOW = 64 * 2**20
"""Files up to this size are hashed completely, larger ones by samples."""
_BLOCK_BYTES = 4096
_BLOCKS_PER_TENSOR = 16
CLOCK_TICK_NS = 2 * 10**9
"""Files that changed less than this ago are not remembered."""


def checkpoint_files(checkpoint: Checkpoint, *, allow_pickle: bool = False) -> CheckpointFiles:
    """The files that would be loaded, from metadata only: nothing is downloaded, no weight is read.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        BadInput: the repository cannot be read.
    """
    folder = _folder_on_disk(checkpoint, allow_pickle)
    if folder is not None:
        return weight_files.check_model_folder(folder, allow_pickle=allow_pickle)
    return hub.hub_checkpoint_files(*checkpoint.hub_place, allow_pickle=allow_pickle)


def weight_bytes(checkpoint: Checkpoint, *, allow_pickle: bool = False, files: CheckpointFiles | None = None) -> int:
    """Size of the weights in bytes, from metadata only; of an adapter with those of its base model.

    Args:
        files: `checkpoint_files` of the checkpoint, if known.
    """
    files = checkpoint_files(checkpoint, allow_pickle=allow_pickle) if files is None else files
    base = adapter_base(checkpoint)
    return files.bytes + (weight_bytes(base, allow_pickle=allow_pickle) if base is not None else 0)


def adapter_base(checkpoint: Checkpoint) -> Checkpoint | None:
    """The base model of a LoRA adapter, from its adapter_config.json; None for a whole model.

    A folder is looked for at the path as it is written, next to the adapter and above it, since training runs are moved; a path that
    is nowhere is a repository on the Hub.

    Raises:
        CheckpointError: the adapter names no base model, or one that is neither a folder nor a repository.
    """
    folder = _folder_on_disk(checkpoint, allow_pickle=True)
    if folder is not None:
        if not weight_files.is_adapter([path.name for path in folder.iterdir()]):
            return None
        config = weight_files.read_json(folder / weight_files.ADAPTER_CONFIG)
        where = folder / weight_files.ADAPTER_CONFIG
    else:
        listed, _ = hub.list_hub_files(*checkpoint.hub_place)
        if not weight_files.is_adapter(listed):
            return None
        config, where = _hub_json(checkpoint, weight_files.ADAPTER_CONFIG), Path(checkpoint.source)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{where} names no base model: add base_model_name_or_path.")
    try:
        base = _base_folder(folder, name) if folder is not None else None
    except (OSError, RuntimeError, ValueError):  # no path on this system: too long, or of an unknown user
        base = None
    if base is not None:
        return Checkpoint(str(base), stage=checkpoint.stage)
    if not hub.looks_like_repository(name):
        raise CheckpointError(
            f"{where} names the base model {name[:200]!r}, which is not a folder here: correct its path."
        )
    return Checkpoint(
        name, revision=revision if isinstance(revision, str) and revision else "main", stage=checkpoint.stage
    )


def _base_folder(folder: Path, name: str) -> Path | None:
    """The base model's folder: at its path, or under its path's end beside the adapter or up to three folders above."""
    path = Path(name).expanduser()
    above = [folder, *folder.absolute().parents[:4]]
    ends = [Path(*path.parts[-n:]) for n in (3, 2, 1) if len(path.parts) >= n and path.anchor != path.parts[-n]]
    places = [
        path,
        *(top / path for top in above if not path.is_absolute()),
        *(top / end for end in ends for top in above),
    ]
    here = folder.resolve()
    return next((p for p in places if p.is_dir() and p.resolve() != here and weight_files.has_config(p)), None)


def _hub_json(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """A JSON file of a checkpoint on the Hub, without a download."""
    revision, where = checkpoint.branch, f"{checkpoint.source} at {checkpoint.branch}"
    listed, commit = hub.list_hub_files(*checkpoint.hub_place)
    if name not in listed:
        raise CheckpointError(f"{where} has no {name}: give a transformers checkpoint.")
    content = hub.read_hub_range(
        checkpoint.source, revision, commit or revision, checkpoint.path_of(name), 0, listed[name].size
    )
    return weight_files.parse_json(content, f"{where}, {name}")


def checkpoint_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The content of config.json, of an adapter that of its base model; on the Hub it is read without a download.

    Raises:
        CheckpointError, BadInput: it cannot be read.
    """
    base = adapter_base(checkpoint)
    if base is not None:
        return checkpoint_config(base)
    folder = _folder_on_disk(checkpoint, allow_pickle=True)
    if folder is not None:
        return weight_files.read_json(weight_files.config_folder(folder) / "config.json")
    return _hub_json(checkpoint, "config.json")


def fetch_checkpoint(checkpoint: Checkpoint, *, allow_pickle: bool = False) -> Path:
    """A local folder with config, weights and tokenizer, checked to be complete.

    From the Hub only JSON, tokenizer and safetensors files are downloaded (`pytorch_model.bin` with `allow_pickle`), never code. A
    complete checkpoint in the cache needs no network.

    Raises:
        CheckpointError, BadInput: it cannot be fetched, or is incomplete.
    """
    folder = _folder_on_disk(checkpoint, allow_pickle)
    if folder is None:
        wanted = hub.hub_checkpoint_files(*checkpoint.hub_place, allow_pickle=allow_pickle)
        folder = hub.download_snapshot(checkpoint.source, checkpoint.branch, wanted, checkpoint.subfolder)
    weight_files.check_model_folder(folder, allow_pickle=allow_pickle)
    return folder


@dataclass
class FileDigests:
    """Digests of weight files that were read before; a file counts as unchanged while its size, inode and times are."""

    known: dict[str, list[Any]] = field(default_factory=dict)
    """Path -> size, inode, times of content and inode in nanoseconds, digest."""
    read: bool = True
    """Whether files that are not known are read; else their size and times stand for them, which no run holds."""
    changed: bool = False
    """Whether a digest was added."""

    def of(self, path: Path) -> str:
        """`file_digest`, read once."""
        stat, key = path.stat(), str(path.absolute())
        state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = self.known.get(key)
        if entry is not None and entry[:-1] == state:
            return str(entry[-1])
        if not self.read:
            return f"not read: {state}"
        digest = file_digest(path)
        # A file that was written a moment ago may be written again within the same tick of the clock.
        if time.time_ns() - max(state[2:]) > CLOCK_TICK_NS:
            self.known[key], self.changed = [*state, digest], True
        return digest


def weight_fingerprint(
    checkpoint: Checkpoint,
    *,
    allow_pickle: bool = False,
    digests: FileDigests | None = None,
    files: CheckpointFiles | None = None,
) -> str:
    """Identity of the weights (without the config), without reading them completely.

    Hub: sha256 over the names and checksums of the weight files in the Hub's metadata, so that branches with the same weights have
    the same fingerprint.
    Folder: sha256 over names, sizes and contents; of files above 64 MiB the header, and of each tensor 16 evenly spaced blocks of
    4 KiB. Training and weight editing change whole matrices and are detected; a single number between two samples is not.
    Adapter: of its weights, its config and its base model.
    Fingerprints of the kinds are not comparable.

    Args:
        digests: Digests of files on disk that are known; others are added.
        files: `checkpoint_files` of the checkpoint, if known.
    """
    if checkpoint.is_local:
        folder = _folder(checkpoint)
        files = weight_files.check_model_folder(folder, allow_pickle=allow_pickle) if files is None else files
        digest = file_digest if digests is None else digests.of
        parts = [(file.name, digest(folder / file.name)) for file in files.weights]
    else:
        parts = _hub_parts(checkpoint, allow_pickle)
    base = adapter_base(checkpoint)
    if base is not None:
        parts.append(("base", weight_fingerprint(base, allow_pickle=allow_pickle, digests=digests)))
        parts.append((weight_files.ADAPTER_CONFIG, _adapter_config_digest(checkpoint)))
    return hashlib.sha256(repr(sorted(parts)).encode()).hexdigest()


def small_file_ids(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, str]:
    """The Hub's checksum of each of these files that a checkpoint on the Hub has; nothing is downloaded.

    Raises:
        CheckpointError, BadInput: the repository cannot be read.
    """
    folder = complete_snapshot(checkpoint, allow_pickle=True)
    if folder is not None:
        # A file in the cache is a link to a blob named by its checksum.
        blobs = {name: (folder / name).resolve() for name in names if (folder / name).is_file()}
        if all(path.parent.name == "blobs" for path in blobs.values()):
            return {name: path.name for name, path in blobs.items()}
    listed, _ = hub.list_hub_files(*checkpoint.hub_place)
    return {name: listed[name].sha256 or str(listed[name].size) for name in names if name in listed}


def _adapter_config_digest(checkpoint: Checkpoint) -> str:
    """Digest of the settings of an adapter, without the path of its base model."""
    folder = _folder_on_disk(checkpoint, allow_pickle=True)
    name = weight_files.ADAPTER_CONFIG
    config = _hub_json(checkpoint, name) if folder is None else weight_files.read_json(folder / name)
    kept = {key: value for key, value in config.items() if key != "base_model_name_or_path"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _folder(checkpoint: Checkpoint) -> Path:
    folder = Path(checkpoint.source)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder: correct the path. A run learns the new place of its checkpoints from another `trace`."
        )
    return folder


def _folder_on_disk(checkpoint: Checkpoint, allow_pickle: bool) -> Path | None:
    return _folder(checkpoint) if checkpoint.is_local else complete_snapshot(checkpoint, allow_pickle)


def complete_snapshot(checkpoint: Checkpoint, allow_pickle: bool) -> Path | None:
    """The snapshot in the cache, if it is complete."""
    folder = hub.cached_snapshot(*checkpoint.hub_place)
    try:
        if folder is not None:
            weight_files.check_model_folder(folder, allow_pickle=allow_pickle)
    except CheckpointError:
        return None
    return folder


def _hub_parts(checkpoint: Checkpoint, allow_pickle: bool) -> list[tuple[str, str]]:
    folder = complete_snapshot(checkpoint, allow_pickle)
    if folder is not None:
        # A file in the cache is a link to a blob named by its hash.
        weights = weight_files.check_model_folder(folder, allow_pickle=allow_pickle).weights
        blobs = [(file.name, (folder / file.name).resolve()) for file in weights]
        if all(path.parent.name == "blobs" for _, path in blobs):
            return [(name, path.name) for name, path in blobs]
    files = hub.hub_checkpoint_files(*checkpoint.hub_place, allow_pickle=allow_pickle)
    return [(file.name, file.sha256 or str(file.size)) for file in files.weights]


def file_digest(path: Path) -> str:
    """Digest of a file; of a large one by samples of each tensor."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb", buffering=0) as file:
        if size <= _HASH_WHOLE_BELOW:
            digest.update(file.read())
            return digest.hexdigest()
        read, handle = os.pread, file.fileno()
        for start, end in _spans(path, size):
            digest.update(b"".join([read(handle, min(_BLOCK_BYTES, end - at), at) for at in _samples(start, end)]))
    return digest.hexdigest()


def _spans(path: Path, size: int) -> list[tuple[int, int]]:
    """Byte ranges of header and tensors; of a pickle 256 equal parts."""
    if path.suffix != ".safetensors":
        edges = [size * i // 256 for i in range(257)]
        return list(itertools.pairwise(edges))
    table = weight_files.read_safetensors_header(path)
    with path.open("rb") as file:
        data = 8 + int.from_bytes(file.read(8), "little")
    tensors = sorted(tuple(entry["data_offsets"]) for name, entry in table.items() if name != "__metadata__")
    # The header is hashed completely: one range per block.
    head = [(at, min(at + _BLOCK_BYTES, data)) for at in range(0, data, _BLOCK_BYTES)]
    return head + [(data + start, data + end) for start, end in tensors]


def _samples(start: int, end: int) -> list[int]:
    room = end - start - _BLOCK_BYTES
    if room <= 0:
        return [start]
    return sorted({start + room * i // (_BLOCKS_PER_TENSOR - 1) for i in range(_BLOCKS_PER_TENSOR)})
