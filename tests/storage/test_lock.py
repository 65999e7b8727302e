"""Two processes on one folder: the second is refused in one line, changes nothing, and gets in when the first is gone."""

import subprocess
import sys
from pathlib import Path

import pytest

from ontogeny.errors import BadInput
from ontogeny.storage.lock import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from ontogeny.lab.alone import alone
with alone(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_gone_even_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        before = sorted(folder.iterdir())
        with pytest.raises(BadInput, match=r"another process is writing into .*run"), run_lock(folder):
            pytest.fail("two processes were let in")
        assert sorted(folder.iterdir()) == before
    finally:
        holder.kill()
        holder.communicate()
    with run_lock(folder):
        (folder / "made").touch()
    assert (folder / "made").exists()


def test_a_folder_made_for_the_lock_goes_with_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path / "a" / "b"):
        raise KeyError
    assert not (tmp_path / "a").exists()
