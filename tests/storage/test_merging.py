"""Merged tensor files: read by their bytes, each tensor with a checksum of its own."""

import contextlib
import itertools
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ontogeny.storage.files import DamagedPart, read_tensors, write_tensors
from ontogeny.storage.merging import (
    combine_crc32,
    crc32_by_tensors,
    read_stored_tensors,
    stored_tensors_of,
    write_stored_tensors,
)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    numbers = {f"unit/é {kind}": torch.randn(3, 4, 2, generator=generator).to(kind) for kind in kinds}
    whole = {"unit/flags": torch.tensor([True, False]), "unit/counts": torch.arange(5), "unit/none": torch.empty(0, 3)}
    return numbers | whole | {"unit/one": torch.tensor(2.5)}


@pytest.fixture
def merged(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    source, target = tmp_path / "source.safetensors", tmp_path / "merged.safetensors"
    write_tensors(source, tensors, {"note": 'a quote " and a name unit/flags='})
    write_stored_tensors(target, stored_tensors_of(source), {"units": {}})
    return target


def test_merged_tensors_equal_their_sources_here_and_in_safetensors(
    merged: Path, tensors: dict[str, torch.Tensor]
) -> None:
    here, theirs = read_stored_tensors(merged, tensors), read_tensors(merged)
    for name, tensor in tensors.items():
        assert torch.equal(here[name], tensor)
        assert torch.equal(theirs[name], tensor)
        assert here[name].dtype == tensor.dtype
    with safe_open(merged, framework="pt") as opened:
        assert set(opened.metadata()) == {"ontogeny", "crc32"}


def test_rows_are_a_slice_of_the_first_axis(merged: Path, tensors: dict[str, torch.Tensor]) -> None:
    name = next(iter(tensors))
    rows = read_stored_tensors(merged, [name], slice(1, 3))[name]
    assert torch.equal(rows, tensors[name][1:3])


def test_every_changed_byte_of_a_tensor_is_noticed_when_it_is_read(
    merged: Path, tensors: dict[str, torch.Tensor]
) -> None:
    content = merged.read_bytes()
    for name, stored in stored_tensors_of(merged).items():
        for at in {stored.start, (stored.start + stored.end) // 2, stored.end - 1} if stored.end > stored.start else ():
            merged.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(DamagedPart, match="checksum"):
                read_stored_tensors(merged, [name], slice(0, 1))
            others = [other for other in tensors if other != name]
            assert read_stored_tensors(merged, others).keys() == set(others)


def test_damaged_header_or_end_is_one_error(merged: Path) -> None:
    content = merged.read_bytes()
    for damaged in (
        b"",
        content[:4],
        b"\xff" * 8 + content[8:],
        content[:-1],
        content.replace(b"data_offsets", b"data_offsetz"),
    ):
        merged.write_bytes(damaged)
        with pytest.raises(DamagedPart):
            read_stored_tensors(merged, ["unit/counts", "unit/flags"])
    merged.unlink()
    with pytest.raises(DamagedPart, match="lost"):
        read_stored_tensors(merged, ["unit/counts"])


def test_file_without_checksums_of_tensors_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "unit.safetensors"
    write_tensors(path, {"a": torch.arange(6).view(3, 2)}, {})
    assert read_stored_tensors(path, ["a"], slice(2, 3))["a"].tolist() == [[4, 5]]
    assert crc32_by_tensors(path) is None


def test_checksum_of_pieces_is_that_of_all_together() -> None:
    content = bytes(range(256)) * 40
    for cuts in ([], [0], [1], [77, 77, 4096], [len(content)], [5, 6, 7, 9000]):
        ends = [0, *cuts, len(content)]
        pieces = [content[start:end] for start, end in itertools.pairwise(ends)]
        assert combine_crc32([(zlib.crc32(piece), len(piece)) for piece in pieces]) == zlib.crc32(content)


def test_checksum_of_a_merged_file_is_that_of_its_content(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    source, target = tmp_path / "source.safetensors", tmp_path / "merged.safetensors"
    write_tensors(source, tensors, {})
    crc = zlib.crc32(target.read_bytes()) if write_stored_tensors(target, stored_tensors_of(source), {}) else 0
    assert write_stored_tensors(target, stored_tensors_of(source), {}) == crc
    assert crc32_by_tensors(target) == crc
    # Any other header amounts to another checksum, or is damaged.
    content = target.read_bytes()
    for at in range(0, 8 + int.from_bytes(content[:8], "little"), 5):
        target.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with contextlib.suppress(DamagedPart):
            assert crc32_by_tensors(target) != crc
