"""Python code in a real process that need not load torch again: forked from one that has loaded libraries and run nothing.

What reads its environment when it is imported (`huggingface_hub`, and `transformers` that imports it) and what is ours is loaded by
the child itself. The child ends as any process does, with its exit code, its output and what is said at exit; warnings are errors.
"""

import atexit
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    "duckdb",
    "httpx2",
    "pandas",
    "requests",
    "rich.progress",
    "safetensors.torch",
    "scipy.stats",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "tokenizers",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "typer",
)
OWN = ("huggingface_hub", "transformers", "ontogeny")
"""What no child may find loaded."""


@dataclass(frozen=True)
class Forked:
    """A child that runs, or has ended."""

    pid: int
    command: list[str]
    folder: Path
    """Where its output goes."""

    def ended(self, timeout: float = 0) -> int | None:
        """Its exit code, once it has one; None where it still runs after so many seconds."""
        code: int | None = _ask({"wait": self.pid, "timeout": timeout})
        return code

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.ended() is None:
            os.kill(self.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
            self.ended(60)

    def said(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def fork(code: str, *argv: object, env: Mapping[str, str], cwd: Path = ROOT) -> Forked:
    """Begin `python -W error -c CODE ARGV…`, but for the seconds of its start."""
    folder, words = Path(tempfile.mkdtemp(dir=_server()[1])), ["-c", *map(str, argv)]
    pid = _ask({"code": code, "argv": words, "env": dict(env), "cwd": str(cwd), "folder": str(folder)})
    return Forked(pid, [sys.executable, *words], folder)


def python(
    code: str, *argv: object, env: Mapping[str, str], cwd: Path = ROOT, timeout: float = 120
) -> "subprocess.CompletedProcess[str]":
    """The same, to its end.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    child = fork(code, *argv, env=env, cwd=cwd)
    ended = child.ended(timeout)
    if ended is None:
        child.kill()
        raise subprocess.TimeoutExpired(child.command, timeout)
    return subprocess.CompletedProcess(child.command, ended, child.said("out"), child.said("err"))


def started(
    code: str, *argv: object, env: Mapping[str, str], cwd: Path = ROOT, timeout: float = 120
) -> "subprocess.CompletedProcess[str]":
    """The same from the first import on, for what may go wrong there."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, argv)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout)


@cache
def _server() -> "tuple[subprocess.Popen[str], str]":
    server = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.helpers.subprocesses"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.communicate)
    return server, folder


def _ask(what: dict[str, Any]) -> Any:
    server, _ = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(what) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not {*OWN} & {*sys.modules}
    gc.freeze()  # what is shared stays shared: nobody looks through it again
    codes: dict[int, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(json.dumps(_ended(asked["wait"], asked["timeout"], codes)), flush=True)
            continue
        child = os.fork()
        if not child:
            os._exit(_become(asked))
        print(child, flush=True)
    os._exit(0)


def _ended(child: int, timeout: float, codes: dict[int, int]) -> int | None:
    limit = time.monotonic() + timeout
    while child not in codes:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            codes[child] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > limit:
            return None
        else:
            time.sleep(0.005)
    return codes[child]


def _become(job: dict[str, Any]) -> int:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(job["folder"], name), os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv = job["argv"]
    # As `python -c`: where it stands comes first, not where this file lies; then what its environment names.
    named = [place for place in job["env"].get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = ["", *named, *(place for place in sys.path[1:] if place not in named)]
    code = 0
    try:
        exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # All that the interpreter does at its end but taking every module apart, which costs more than most jobs.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
