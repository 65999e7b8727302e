"""A forked process is one of its own: its exit code, environment, folder, warnings and memory; and what hangs is killed."""

import os
import subprocess

import pytest

from tests.helpers.subprocesses import OWN, fork, python

ENV = {"PATH": os.environ["PATH"], "ASKED": "yes"}


def test_it_ends_as_a_process_does(tmp_path) -> None:
    code = (
        "import atexit, os, sys; atexit.register(print, 'at exit'); print(os.getcwd(), sys.argv[1:], dict(os.environ))"
    )
    done = python(f"{code}; print('told', file=sys.stderr); sys.exit(7)", "a b", 3, env=ENV, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (7, "told\n")
    assert done.stdout == f"{tmp_path} ['a b', '3'] {ENV}\nat exit\n"
    done = python("1 / 0", env=ENV)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", env=ENV).returncode == -9


def test_warnings_are_errors() -> None:
    assert (
        "DeprecationWarning: old" in python("import warnings; warnings.warn('old', DeprecationWarning)", env=ENV).stderr
    )


def test_nothing_of_one_is_seen_by_the_next() -> None:
    look = (
        f"import os, sys; print([m for m in {OWN!r} if m in sys.modules], os.environ.get('LEFT'), hasattr(os, 'left'))"
    )
    leave = f"{look}; os.environ['LEFT'] = '1'; os.left = 1; import ontogeny"
    assert [python(code, env=ENV).stdout for code in (leave, look)] == ["[] None False\n"] * 2


def test_the_hub_is_the_one_of_its_environment() -> None:
    for place in ("http://127.0.0.1:9", "http://127.0.0.1:10"):
        code = "import transformers, huggingface_hub; print(huggingface_hub.constants.ENDPOINT)"
        assert python(code, env=ENV | {"HF_ENDPOINT": place}).stdout == f"{place}\n"


def test_what_hangs_is_killed_and_the_next_one_runs() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        python("import time; time.sleep(60)", env=ENV, timeout=0.05)
    assert python("print(1)", env=ENV).stdout == "1\n"


def test_two_run_at_once_and_one_is_killed(tmp_path) -> None:
    code = "import pathlib, time; pathlib.Path('here').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    one, other = (fork(code, env=ENV, cwd=folder) for folder in folders)
    while not all((folder / "here").exists() for folder in folders):
        assert one.ended() is other.ended() is None
    one.kill()
    (folders[1] / "go").touch()
    assert (one.ended(), other.ended(60)) == (-9, 0)
