"""Read and merge safetensors files by their bytes: a merge costs as much as a copy, and one tensor of many as much as its bytes.

Layout: 8 bytes with the length of the header, a JSON header of dtype, shape and offsets, then the data without holes. Source:
github.com/huggingface/safetensors, "Format". The metadata of a merged file hold the CRC-32 of each tensor, so that one of them can be
compared without reading the rest.
"""

import contextlib
import functools
import itertools
import json
import math
import os
import re
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
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
    except FileNotFoundError:
        raise DamagedPart(file, "lost") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DamagedPart(file, f"damaged ({error})") from None


def read_stored_tensors(file: Path, names: Iterable[str], rows: slice | None = None) -> dict[str, Any]:
    """Some tensors of a safetensors file, or rows of their first axis; the rest of the file is not read.

    Raises:
        DamagedPart: the file is damaged or lost, or lacks a tensor.
    """
    try:
        with open(file, "rb", buffering=0) as handle:
            stat, header = os.fstat(handle.fileno()), _header_of(file, handle)
            data = 8 + len(header)
            found = {}
            for name in names:
                entry, known = _entry(header, name), _sum_in(header, name)
                if data + entry["data_offsets"][1] > stat.st_size:
                    raise ValueError("it is shorter than its header says")
                if known is None:
                    found[name] = _read_tensor(handle, data, entry, rows)
                    continue
                tensor = _read_tensor(handle, data, entry, None)
                if f"{zlib.crc32(_bytes_of(tensor)):08x}".encode() != known:
                    raise ValueError("the checksum of a tensor differs")
                found[name] = tensor if rows is None else tensor[rows]
            return found
    except FileNotFoundError:
        raise DamagedPart(file, "lost") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedPart(file, f"damaged ({error})") from None


_FileState = tuple[int, int, int]
_headers: dict[Path, tuple[_FileState, bytes]] = {}
"""Headers that were read last, with size, time and inode of their files."""
_headers_lock = threading.Lock()
_HEADER_BYTES = 2**26
"""Bytes of headers that are held: a summary reads tensor after tensor of the same few hundred files."""


def _header_of(file: Path, handle: Any) -> bytes:
    """The JSON header of an open safetensors file, read once."""
    stat = os.fstat(handle.fileno())
    state = stat.st_size, stat.st_mtime_ns, stat.st_ino
    known = _headers.get(file)
    if known is not None and known[0] == state:
        return known[1]
    length = int.from_bytes(handle.read(8), "little")
    if 8 + length > stat.st_size:
        raise ValueError("its header is longer than the file")
    header: bytes = handle.read(length)
    with _headers_lock:
        while _headers and (len(_headers) + 1) * length > _HEADER_BYTES:  # those of one run are about as long
            del _headers[next(iter(_headers))]
        _headers[file] = state, header
    return header


_SUMS = re.compile(rb'"crc32":"([^"\\]*(?:\\.[^"\\]*)*)"')
_SUM = re.compile(rb"=([0-9a-f]{8})(?= |$)")
_END = re.compile(rb'"data_offsets":\[\d+,(\d+)\]')


def crc32_by_tensors(file: Path) -> int | None:
    """The CRC-32 of a file by those of its header and of its tensors, which are not read; None if the header has none of tensors.

    Raises:
        DamagedPart: its header cannot be read.
    """
    try:
        with file.open("rb", buffering=0) as handle:
            start = handle.read(8)
            text = start + handle.read(int.from_bytes(start, "little"))
        stored = _SUMS.search(text)
        if stored is None:
            return None
        # `write_stored_tensors` wrote the header, so entries and checksums are in the order of the tensors. In texts, quotes are escaped.
        ends = [int(end) for end in _END.findall(text)]
        sums = [int(value, 16) for value in _SUM.findall(stored[1])]
        lengths = [end - before for before, end in zip([0, *ends], ends, strict=False)]
        if len(sums) != len(ends) or min(lengths, default=0) < 0 or (ends and ends[-1] > os.stat(file).st_size):
            raise ValueError("its header does not have a checksum of each tensor")
        pieces = [(zlib.crc32(text), len(text)), *zip(sums, lengths, strict=True)]
        return combine_crc32(pieces)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        raise DamagedPart(file, f"damaged ({error})") from None


def _entry(header: bytes, name: str) -> Mapping[str, Any]:
    """The entry of a tensor in a header, which may have thousands; in the header's own texts, quotes are escaped."""
    key = json.dumps(name).encode() + b":{"
    start = header.find(key)
    if start >= 0:
        end = header.index(b"}", start) + 1
        entry: Mapping[str, Any] = json.loads(header[start + len(key) - 1 : end])
    else:  # another writer may put spaces there
        entry = json.loads(header)[name]
    return entry


def _sum_in(header: bytes, name: str) -> bytes | None:
    """The CRC-32 of a tensor, 8 hex digits; None in a file without checksums of tensors."""
    key = b" " + json.dumps(name)[1:-1].encode() + b"="
    start = header.find(key)
    return header[start + len(key) :][:8] if start >= 0 else None


def _bytes_of(tensor: Any) -> memoryview:
    import torch

    return memoryview(tensor.view(-1).view(torch.uint8).numpy())


def _read_tensor(handle: Any, data: int, entry: Mapping[str, Any], rows: slice | None) -> Any:
    import torch

    dtype, shape, (start, end) = safetensors_dtypes()[entry["dtype"]], list(entry["shape"]), entry["data_offsets"]
    if rows is not None:
        first, last, _ = rows.indices(shape[0])
        row = (end - start) // max(1, shape[0])
        start, end = start + row * first, start + row * last
        shape[0] = last - first
    if end - start != dtype.itemsize * math.prod(shape):
        raise ValueError("the size of a tensor is not that of its shape")
    tensor = torch.empty(shape, dtype=dtype)
    if start == end:
        return tensor
    handle.seek(data + start)
    into = _bytes_of(tensor)
    while len(into):
        if not (count := handle.readinto(into)):
            raise ValueError("it is shorter than its header says")
        into = into[count:]
    return tensor


def safetensors_dtypes() -> dict[str, Any]:
    """Dtypes of torch by their names in a safetensors header."""
    import torch

    return {
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
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }


def write_stored_tensors(path: Path, tensors: Mapping[str, StoredTensor], header: Mapping[str, Any]) -> int:
    """Write tensors of other files as one file with `header`, as `write_tensors` does, and with a checksum of each tensor.

    Returns the CRC-32 of the file.

    Raises:
        DamagedPart: a file is shorter than its header says.
    """
    ordered = sorted(tensors.items(), key=lambda item: -_ITEM_BYTES.get(item[1].dtype, 1))
    sums = dict.fromkeys((name for name, _ in ordered), 0)
    text = _header(ordered, header, sums)
    with path.open("wb") as target:
        target.write(text)
        buffer = memoryview(bytearray(_CHUNK))
        with contextlib.ExitStack() as stack:
            sources: dict[Path, Any] = {}
            for name, tensor in ordered:
                if tensor.file not in sources:
                    sources[tensor.file] = stack.enter_context(tensor.file.open("rb", buffering=0))
                sums[name] = _copy(sources[tensor.file], target, tensor, buffer)
        target.seek(0)  # the checksums are as long as the zeros in their place
        text = _header(ordered, header, sums)
        target.write(text)
    pieces = [(zlib.crc32(text), len(text)), *((sums[name], tensor.end - tensor.start) for name, tensor in ordered)]
    return combine_crc32(pieces)


def _header(tensors: Sequence[tuple[str, StoredTensor]], header: Mapping[str, Any], sums: Mapping[str, int]) -> bytes:
    own = {
        "ontogeny": json.dumps(header, default=str),
        "crc32": "".join(f" {name}={value:08x}" for name, value in sums.items()),
    }
    table: dict[str, Any] = {"__metadata__": own}
    offset = 0
    for name, tensor in tensors:
        end = offset + tensor.end - tensor.start
        table[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy(source: Any, target: BinaryIO, tensor: StoredTensor, buffer: memoryview) -> int:
    """Copy the bytes of a tensor; returns their CRC-32."""
    start, value = tensor.start, 0
    source.seek(start)
    while start < tensor.end:
        count = source.readinto(buffer[: tensor.end - start])
        if not count:
            raise DamagedPart(tensor.file, f"damaged (it ends at {os.fstat(source.fileno()).st_size} bytes)")
        target.write(buffer[:count])
        value = zlib.crc32(buffer[:count], value)
        start += count
    return value


def combine_crc32(pieces: Sequence[tuple[int, int]]) -> int:
    """CRC-32 of pieces one after the other, from the CRC-32 and the number of bytes of each.

    Each is multiplied by x^(8 bytes after it) modulo the polynomial of CRC-32, bits in reversed order, as in crc32_combine of zlib.
    """
    import numpy as np

    after = itertools.accumulate((length for _, length in reversed(pieces[1:])), initial=0)
    table = _products_with_bits(tuple(after)[::-1])
    bits = np.unpackbits(np.array([crc for crc, _ in pieces], dtype=">u4").view(np.uint8)).astype(bool)
    return int(np.bitwise_xor.reduce(table[bits], initial=0))


@functools.lru_cache(maxsize=4)
def _products_with_bits(after: tuple[int, ...]) -> Any:
    """x^(8 bytes after it) of each piece times each bit of a CRC-32, the highest bit first; parts of one run have the same lengths."""
    import numpy as np

    power = np.array([_power(length) for length in after], dtype=np.uint32)
    table = np.empty((len(after), 32), dtype=np.uint32)
    for place in range(32):
        table[:, place] = power
        power = power >> np.uint32(1) ^ np.uint32(_POLYNOMIAL) * (power & np.uint32(1))
    return table.reshape(-1)


_POLYNOMIAL = 0xEDB88320


def _multiply(a: int, b: int) -> int:
    product = 0
    for place in range(31, -1, -1):
        if a >> place & 1:
            product ^= b
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@functools.lru_cache(maxsize=4096)
def _power(length: int) -> int:
    """x^(8 length)."""
    power, square = 1 << 31, 1 << 23  # 1 and x^8
    while length:
        if length & 1:
            power = _multiply(power, square)
        square = _multiply(square, square)
        length >>= 1
    return power
