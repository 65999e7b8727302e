"""The lock of a run directory."""

import subprocess
import sys
from pathlib import Path

import pytest

from ontogeny.errors import BadInput
from ontogeny.storage.lock import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from ontogeny.storage.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


def test_second_process_fails_until_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        before = sorted(folder.iterdir())
        with pytest.raises(BadInput, match=r"another process is writing into .*run"), run_lock(folder):
            pytest.fail("two processes hold the lock")
        assert sorted(folder.iterdir()) == before
    finally:
        holder.kill()
        holder.communicate()
    with run_lock(folder):
        (folder / "file").touch()
    assert (folder / "file").exists()


def test_folder_created_for_lock_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path / "a" / "b"):
        raise KeyError
    assert not (tmp_path / "a").exists()
