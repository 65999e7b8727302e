"""Load another checkpoint's weights into an existing model in place, by large sequential reads.

The map between tensors of the files and of the network is built once, from a checkpoint that transformers loaded: by name, and
where transformers renames (GPT-NeoX's `embed_out` is its `lm_head`) by content. Every tensor must equal the one in the file bit for
bit (large ones at both ends and in the middle); otherwise there is no map and transformers loads each checkpoint.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ontogeny.errors import CheckpointError
from ontogeny.lineage.weight_files import (
    SAFETENSORS_INDEX,
    check_model_folder,
    choose_weight_files,
    config_folder,
    read_json,
    read_safetensors_header,
    unwrapped_names,
)
from ontogeny.storage.merging import safetensors_dtypes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SAMPLE_BYTES = 2**15
"""Entries that are compared at each of three positions of a large tensor."""
_CHUNK_BYTES = 64 * 2**20
"""Size of one chunk when a tensor is copied to a device or converted to another dtype."""
_READABLE_DTYPES = {name: dtype for name, dtype in safetensors_dtypes().items() if not name.startswith("F8")}
"""Float8 weights need scales."""
_IGNORED_CONFIG_KEYS = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "use_cache")


@dataclass(frozen=True)
class TensorLocation:
    """Location of a tensor in a safetensors file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte."""
    bytes: int


@dataclass(frozen=True)
class TensorMap:
    """Map from tensors of the network to tensors of the files; valid for checkpoints with equal `shapes` and `config`."""

    names: Mapping[str, str]
    """Name in the files of each tensor of the network."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of all tensors in the files."""
    config: Mapping[str, object]


def tensor_map(network: nn.Module, folder: Path) -> TensorMap | None:
    """The map for a network that transformers just loaded from this folder; None if there is none."""
    try:
        places = tensor_locations(folder)
    except CheckpointError:  # e.g. a pickle, which only transformers reads
        return None
    tensors = _tensors(network)
    names = {name: name for name in tensors if name in places}
    spare = [name for name in places if name not in names]
    for name in (name for name in tensors if name not in names):
        same = [other for other in spare if _equal(tensors[name], places[other])]
        if len(same) != 1:
            return None
        names[name] = same[0]
        spare.remove(same[0])
    if not all(_equal(tensors[name], places[names[name]]) for name in names):
        return None
    return TensorMap(names, {name: place.shape for name, place in places.items()}, _config(folder))


def is_compatible(known: TensorMap, folder: Path) -> bool:
    """Whether a checkpoint has the tensors and the config that the map was built for.

    Raises:
        CheckpointError: its weights are missing or truncated.
    """
    return {n: p.shape for n, p in tensor_locations(folder).items()} == known.shapes and _config(folder) == known.config


@torch.no_grad()
def load_into(network: nn.Module, known: TensorMap, folder: Path, *, leave_out: Collection[str] = ()) -> int:
    """Read a checkpoint's tensors into the network's memory and return the bytes read; call `is_compatible` first."""
    places, tensors = tensor_locations(folder), _tensors(network)
    jobs = [(places[stored], tensors[name]) for name, stored in known.names.items() if name not in leave_out]
    jobs.sort(key=lambda job: (job[0].file, job[0].start))
    for file in dict.fromkeys(place.file for place, _ in jobs):
        with file.open("rb", buffering=0) as source:
            for place, target in jobs:
                if place.file == file:
                    _read(source.fileno(), place, target)
    for device in {target.device for _, target in jobs if target.device.type == "cuda"}:
        torch.cuda.synchronize(device)
    return sum(place.bytes for place, _ in jobs)


def copy_to_own_memory(network: nn.Module, *, leave_out: Collection[str] = ()) -> None:
    """Replace tensors that are read-only views of a file by uninitialised memory."""
    for name, tensor in _tensors(network).items():
        if tensor.device.type == "cpu" and name not in leave_out:
            tensor.data = torch.empty_like(tensor)


def warm_page_cache(folder: Path) -> None:
    """Read a checkpoint's files sequentially into the page cache: two to three times as fast as page faults of a mapped file."""
    buffer = memoryview(bytearray(16 * 2**20))
    files = check_model_folder(folder, allow_pickle=True).weights
    for file in (folder / file.name for file in files if file.name.endswith(".safetensors")):
        with file.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass


def tensor_locations(folder: Path) -> dict[str, TensorLocation]:
    """Locations of all tensors of a checkpoint, from the headers of its files.

    Raises:
        CheckpointError: there are no safetensors files, or one is truncated or unreadable.
    """
    names = [path.name for path in folder.iterdir()]
    index = read_json(folder / SAFETENSORS_INDEX).get("weight_map", {}) if SAFETENSORS_INDEX in names else {}
    places = {}
    for name in choose_weight_files(names, str(folder), shards=tuple(sorted(set(index.values())))):
        table = read_safetensors_header(folder / name)
        with (folder / name).open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
        for tensor, entry in table.items():
            if tensor == "__metadata__":
                continue
            dtype, shape = _READABLE_DTYPES.get(entry["dtype"]), tuple(entry["shape"])
            if dtype is None:
                raise CheckpointError(
                    f"{folder / name} holds {tensor} as {entry['dtype']}, which cannot be read: save it as F32 or BF16."
                )
            first, last = entry["data_offsets"]
            if last - first != (size := math.prod(shape) * dtype.itemsize):
                raise CheckpointError(
                    f"{tensor} in {folder / name} must have {size} bytes, got {last - first}: fetch or save it again."
                )
            places[tensor] = TensorLocation(folder / name, dtype, shape, begin + first, last - first)
    return {name: places[stored] for stored, name in unwrapped_names(places).items()}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers; tied tensors once."""
    state = network.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {name: state[name] for name in first.values()}


def unembedding_tensors(network: "PreTrainedModel") -> set[str]:
    """Names of the tensors used for logits only; none if they are tied to the embedding."""
    head, embed = network.get_output_embeddings(), network.get_input_embeddings()
    untied = {id(tensor) for tensor in head.parameters()} if head is not None else set()
    untied -= {id(tensor) for tensor in embed.parameters()}
    return {name for name, tensor in _tensors(network).items() if id(tensor) in untied}


def _config(folder: Path) -> dict[str, object]:
    config = read_json(config_folder(folder) / "config.json")
    return {name: value for name, value in config.items() if name not in _IGNORED_CONFIG_KEYS}


def _equal(tensor: Tensor, place: TensorLocation) -> bool:
    if tuple(tensor.shape) != place.shape:
        return False
    values, entry = tensor.detach().reshape(-1), place.dtype.itemsize
    count = len(values)
    with place.file.open("rb", buffering=0) as source:
        for first in sorted({0, max(0, count // 2 - _SAMPLE_BYTES), max(0, count - _SAMPLE_BYTES)}):
            n = min(_SAMPLE_BYTES, count - first)
            stored = torch.empty(n, dtype=values.dtype)
            part = TensorLocation(place.file, place.dtype, (n,), place.start + first * entry, n * entry)
            _read(source.fileno(), part, stored)
            if not torch.equal(stored, values[first : first + n].cpu()):
                return False
    return True


def _read(file: int, place: TensorLocation, target: Tensor) -> None:
    if target.device.type == "cpu" and target.dtype == place.dtype and target.is_contiguous():
        _read_into(file, place.start, _bytes(target))
        return
    flat = target.detach().view(-1) if target.is_contiguous() else torch.empty(target.numel(), dtype=place.dtype)
    done = 0
    with torch.cuda.device_of(target):  # events belong to the current device
        for piece in _read_chunks(file, place, pinned=target.device.type == "cuda"):
            flat[done : done + len(piece)].copy_(piece, non_blocking=True)
            done += len(piece)
    if not target.is_contiguous():
        target.copy_(flat.view(place.shape))


def _read_chunks(file: int, place: TensorLocation, *, pinned: bool) -> Iterator[Tensor]:
    """The tensor's entries in order, through two buffers: one is filled while the other is copied to the device."""
    size = max(1, _CHUNK_BYTES // place.dtype.itemsize)
    count = place.bytes // place.dtype.itemsize
    buffers = [torch.empty(min(size, count), dtype=place.dtype, pin_memory=pinned) for _ in range(2)]
    sent: list[Callable[[], None] | None] = [None, None]
    for turn, first in enumerate(range(0, count, size)):
        wait = sent[turn % 2]
        if wait:
            wait()
        piece = buffers[turn % 2][: min(size, count - first)]
        _read_into(file, place.start + first * place.dtype.itemsize, _bytes(piece))
        yield piece
        if pinned:
            event: torch.cuda.Event = torch.cuda.Event()
            event.record()
            sent[turn % 2] = event.synchronize


def _read_into(file: int, start: int, target: memoryview) -> None:
    done = 0
    while done < len(target):
        got = os.preadv(file, [target[done:]], start + done)
        if not got:
            raise CheckpointError("a weight file became shorter while it was read: fetch or save it again.")
        done += got


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().view(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
