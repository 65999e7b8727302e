"""Merge safetensors files by their bytes: no tensor is built, so that a merge costs as much as a copy.

Layout: 8 bytes with the length of the header, a JSON header of dtype, shape and offsets, then the data without holes. Source:
github.com/huggingface/safetensors, "Format".
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ontogeny.storage.files import DamagedPart

_CHUNK = 2**22
_ITEM_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes of an entry; 1 for other dtypes. Larger ones are written first, so that each is aligned."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, by its bytes."""

    file: Path
    start: int
    end: int
    dtype: str
    shape: list[int]


def stored_tensors_of(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name.

    Raises:
        DamagedPart: its header cannot be read.
    """
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            table = json.loads(handle.read(length))
        data = 8 + length
        return {
            name: StoredTensor(
                file,
                data + entry["data_offsets"][0],
                data + entry["data_offsets"][1],
                entry["dtype"],
                entry["shape"],
            )
            for name, entry in table.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DamagedPart(file, f"damaged ({error})") from None


def write_stored_tensors(path: Path, tensors: Mapping[str, StoredTensor], header: Mapping[str, Any]) -> None:
    """Write tensors of other files as one file with `header`, as `write_tensors` does.

    Raises:
        DamagedPart: a file is shorter than its header says.
    """
    ordered = sorted(tensors.items(), key=lambda item: -_ITEM_BYTES.get(item[1].dtype, 1))
    table: dict[str, Any] = {"__metadata__": {"ontogeny": json.dumps(header, default=str)}}
    offset = 0
    for name, tensor in ordered:
        end = offset + tensor.end - tensor.start
        table[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for file, start, end in _ranges([tensor for _, tensor in ordered]):
            with file.open("rb", buffering=0) as source:
                _copy(source, target, file, start, end)


def _ranges(tensors: list[StoredTensor]) -> Iterator[tuple[Path, int, int]]:
    """File, start and end of the bytes of all tensors, neighbours as one range."""
    current: tuple[Path, int, int] | None = None
    for tensor in tensors:
        if current is not None and (current[0], current[2]) == (tensor.file, tensor.start):
            current = (tensor.file, current[1], tensor.end)
            continue
        if current is not None:
            yield current
        current = (tensor.file, tensor.start, tensor.end)
    if current is not None:
        yield current


def _copy(source: Any, target: BinaryIO, file: Path, start: int, end: int) -> None:
    buffer = memoryview(bytearray(min(_CHUNK, end - start)))
    source.seek(start)
    while start < end:
        count = source.readinto(buffer[: end - start])
        if not count:
            raise DamagedPart(file, f"damaged (it ends at {os.fstat(source.fileno()).st_size} bytes)")
        target.write(buffer[:count])
        start += count
