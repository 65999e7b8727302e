"""A full disk: finished work stays valid, and the error is one line."""

import ctypes
import re
from pathlib import Path

import pytest

from tests.flows.bad_input.place import Place, everything, one_line
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import save_run


@pytest.fixture
def small_disk(tmp_path: Path):
    """small_disk(kilobytes) -> a file system of that size."""
    mounted = []
    libc = ctypes.CDLL(None, use_errno=True)

    def make(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        options = f"size={kilobytes}k".encode()
        if not hasattr(libc, "mount") or libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, options):
            pytest.skip("may not mount a small file system here")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        libc.umount2(bytes(folder), 2)


@pytest.mark.parametrize("kilobytes", [0, 8, 24, 40])
def test_full_disk_leaves_nothing_behind(small_disk, kilobytes, place: Place, say: Say) -> None:
    disk = small_disk(max(kilobytes, 4))
    if not kilobytes:
        (disk / "filled").write_bytes(b"0" * 4096)
    argv = [*place.trace()[:-1], str(disk / "out"), "--sites", "resid"]
    before = everything(disk)
    code, out, err = say(*argv)
    assert re.search(r"cannot write .*: the disk is full\. Free some space", one_line(err)), err
    assert (code, out) == (2, "")
    assert everything(disk) == before


def test_disk_that_fills_up_keeps_finished_units(small_disk, place: Place, say: Say) -> None:
    disk = small_disk(300)
    save_run(place.folder / "run", dict.fromkeys(range(1, 16), 0.0))
    argv = [*place.trace(place.folder / "run")[:-1], str(disk / "out"), "--sites", "resid"]
    code, _, err = say(*argv)
    assert code == 2
    assert "the disk is full" in one_line(err)
    assert not list(disk.rglob("*.tmp"))
    counted = say("query", disk / "out", "select count(distinct step) from records", "-f", "csv")
    assert 0 < int(counted.out.split()[-1]) < 15
