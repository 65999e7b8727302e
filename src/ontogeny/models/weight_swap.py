"""Another checkpoint's weights into a model that stands: one model a lineage, its tensors filled by large sequential reads.

The map from the tensors of the files to those of the network is found once, from a checkpoint that transformers itself loaded:
by name, and where transformers renames (GPT-NeoX's `embed_out` is its `lm_head`) by content. Every tensor must equal the one in the
file, bit for bit (large ones at their ends and in their middle), or there is no map and transformers loads each checkpoint.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ontogeny.errors import CheckpointError
from ontogeny.lineage.weight_files import SAFETENSORS_INDEX, choose_weight_files, read_json, read_safetensors_header

_SAMPLE_BYTES = 2**15
"""Entries that are compared at each of three places of a large tensor."""
_CHUNK_BYTES = 64 * 2**20
"""Bytes in one piece on the way to a device, or through another dtype."""
_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NOT_THE_NETWORK = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "use_cache")


@dataclass(frozen=True)
class TensorLocation:
    """Where a tensor lies."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    bytes: int


@dataclass(frozen=True)
class TensorMap:
    """Which tensor of a checkpoint's files belongs into which tensor of the network, and what must not differ for that."""

    names: Mapping[str, str]
    """Of the network's tensors, in the files."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of all tensors in the files."""
    config: Mapping[str, object]


def tensor_map(network: nn.Module, folder: Path) -> TensorMap | None:
    """The map, from the network that was just loaded from this folder; None where there is none."""
    try:
        lie = tensor_locations(folder)
    except CheckpointError:  # a pickle, say: transformers could read it, we do not
        return None
    tensors = _tensors(network)
    names = {name: name for name in tensors if name in lie}
    spare = [name for name in lie if name not in names]
    for name in (name for name in tensors if name not in names):
        same = [
            other
            for other in spare
            if lie[other].shape == tuple(tensors[name].shape) and _equal(tensors[name], lie[other])
        ]
        if len(same) != 1:
            return None
        names[name] = same[0]
        spare.remove(same[0])
    if not all(_equal(tensors[name], lie[names[name]]) for name in names):
        return None
    return TensorMap(names, {name: place.shape for name, place in lie.items()}, _config(folder))


def is_compatible(known: TensorMap, folder: Path) -> bool:
    """Whether the checkpoint in this folder has the tensors and the configuration that the map was made for.

    Raises:
        CheckpointFault: its weights are missing or cut off.
    """
    return {n: p.shape for n, p in tensor_locations(folder).items()} == known.shapes and _config(folder) == known.config


@torch.no_grad()
def load_into(network: nn.Module, known: TensorMap, folder: Path, *, leave_out: Collection[str] = ()) -> int:
    """Read the checkpoint's tensors into the network's own memory; gives the bytes read. Ask `fits` before."""
    lie, tensors = tensor_locations(folder), _tensors(network)
    jobs = [(lie[there], tensors[name]) for name, there in known.names.items() if name not in leave_out]
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
    """Give tensors that transformers loaded, views of a file that must not be written, memory of their own, not yet filled."""
    for name, tensor in _tensors(network).items():
        if tensor.device.type == "cpu" and name not in leave_out:
            tensor.data = torch.empty_like(tensor)


def warm_page_cache(folder: Path) -> None:
    """Read a checkpoint's files once from end to end, so that they lie in the page cache when they are wanted.

    Sequential reads run at two to three times the speed of the page faults of a mapped file.
    """
    buffer = memoryview(bytearray(16 * 2**20))
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass


def tensor_locations(folder: Path) -> dict[str, TensorLocation]:
    """All tensors of a checkpoint, from the headers of its files.

    Raises:
        CheckpointFault: no safetensors, or one that is cut off or unreadable.
    """
    names = [path.name for path in folder.iterdir()]
    index = read_json(folder / SAFETENSORS_INDEX).get("weight_map", {}) if SAFETENSORS_INDEX in names else {}
    found = {}
    for name in choose_weight_files(names, str(folder), shards=tuple(sorted(set(index.values())))):
        table = read_safetensors_header(folder / name)
        with (folder / name).open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
        for tensor, told in table.items():
            if tensor == "__metadata__":
                continue
            if told["dtype"] not in _SAFETENSORS_DTYPES:
                raise CheckpointError(
                    f"{folder / name} holds {tensor} as {told['dtype']}, which cannot be read. Save it as F32 or BF16."
                )
            first, last = told["data_offsets"]
            if last - first != math.prod(told["shape"]) * _SAFETENSORS_DTYPES[told["dtype"]].itemsize:
                raise CheckpointError(
                    f"{folder / name} has {last - first} bytes for {tensor}, which its shape contradicts. Fetch or save it again."
                )
            found[tensor] = TensorLocation(
                folder / name, _SAFETENSORS_DTYPES[told["dtype"]], tuple(told["shape"]), begin + first, last - first
            )
    return found


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers, each once: tied ones share their memory."""
    state = network.state_dict(keep_vars=True)
    seen: dict[int, str] = {}
    for name, tensor in state.items():
        seen.setdefault(id(tensor), name)
    return {name: state[name] for name in seen.values()}


def unembedding_tensors(network: PreTrainedModel) -> set[str]:
    """Names of the tensors that only the vocabulary's scores need: none where they are tied to the embedding."""
    head, embed = network.get_output_embeddings(), network.get_input_embeddings()
    mine = {id(tensor) for tensor in head.parameters()} if head is not None else set()
    mine -= {id(tensor) for tensor in embed.parameters()}
    return {name for name, tensor in _tensors(network).items() if id(tensor) in mine}


def _config(folder: Path) -> dict[str, object]:
    return {name: value for name, value in read_json(folder / "config.json").items() if name not in _NOT_THE_NETWORK}


def _equal(tensor: Tensor, place: TensorLocation) -> bool:
    if tuple(tensor.shape) != place.shape:
        return False
    mine, entry = tensor.detach().reshape(-1), place.dtype.itemsize
    count = len(mine)
    with place.file.open("rb", buffering=0) as source:
        for first in sorted({0, max(0, count // 2 - _SAMPLE_BYTES), max(0, count - _SAMPLE_BYTES)}):
            some = min(_SAMPLE_BYTES, count - first)
            theirs = torch.empty(some, dtype=mine.dtype)
            _read(
                source.fileno(),
                TensorLocation(place.file, place.dtype, (some,), place.start + first * entry, some * entry),
                theirs,
            )
            if not torch.equal(theirs, mine[first : first + some].cpu()):
                return False
    return True


def _read(file: int, place: TensorLocation, target: Tensor) -> None:
    if target.device.type == "cpu" and target.dtype == place.dtype and target.is_contiguous():
        _read_into(file, place.start, _bytes(target))
        return
    flat = target.detach().view(-1) if target.is_contiguous() else torch.empty(target.numel(), dtype=place.dtype)
    done = 0
    with torch.cuda.device_of(target):  # the events are of the device that is current
        for piece in _read_chunks(file, place, pinned=target.device.type == "cuda"):
            flat[done : done + len(piece)].copy_(piece, non_blocking=True)
            done += len(piece)
    if not target.is_contiguous():
        target.copy_(flat.view(place.shape))


def _read_chunks(file: int, place: TensorLocation, *, pinned: bool) -> Iterator[Tensor]:
    """The tensor's entries in order, through two buffers: one is filled while the other is on its way to the device."""
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
            raise CheckpointError("a weight file became shorter while it was read. Fetch or save it again.")
        done += got


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().view(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
