"""Python code in a real process that need not load torch again: forked from one that has loaded libraries and run nothing.

What reads its environment when it is imported (`huggingface_hub`, and `transformers` that imports it) and what is ours is loaded by
the child itself. The child ends as any process does, with its exit code, its output and what is said at exit; warnings are errors.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
LIBRARIES = (
    "duckdb",
    "httpx",
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


def python(
    code: str, *argv: object, env: Mapping[str, str], cwd: Path = ROOT, timeout: float = 120
) -> "subprocess.CompletedProcess[str]":
    """`python -W error -c CODE ARGV…`, but for the seconds of its start.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as folder:
        job = {"code": code, "argv": ["-c", *map(str, argv)], "env": dict(env), "cwd": str(cwd), "told": folder}
        server.stdin.write(json.dumps(job | {"timeout": timeout}) + "\n")
        server.stdin.flush()
        ended = json.loads(server.stdout.readline())
        if ended is None:
            raise subprocess.TimeoutExpired(code, timeout)
        out, err = (Path(folder, name).read_text(encoding="utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess([sys.executable, "-c", code, *map(str, argv)], ended, out, err)


def started(
    code: str, *argv: object, env: Mapping[str, str], cwd: Path = ROOT, timeout: float = 120
) -> "subprocess.CompletedProcess[str]":
    """The same with all of its start, for what may go wrong there."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, argv)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout)


@cache
def _server() -> "subprocess.Popen[str]":
    server = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.forked"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def main() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not {*OWN} & {*sys.modules}
    gc.freeze()  # what is shared stays shared: nobody looks through it again
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_become(job))
        print(json.dumps(_ended(child, job["timeout"])), flush=True)
    os._exit(0)


def _ended(child: int, timeout: float) -> int | None:
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _become(job: dict[str, Any]) -> int:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(job["told"], name), os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv = job["argv"]
    # As `python -c`: where it stands comes first, not where this file lies.
    sys.path[0] = ""
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
