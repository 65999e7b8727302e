"""A process with everything imported that forks one child per job, so that a crash needs no new imports.

Spoken to by lines of JSON; answers each with the child's exit code: 0 done, 2 refused in words, 3 crashed, 137 killed.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.injection import Crash, Points, counted

HEAVY = (
    "duckdb",
    "pandas",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "transformers.models.gpt_neox.modeling_gpt_neox",
)
"""What jobs import on their way: done once, two thirds of a child's time are saved."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    code: int
    points: tuple[str, ...]
    """The kind of each point that was passed."""
    said: str


class Forks:
    """The parent's side."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.communicate()

    def run(
        self,
        subject: str,
        home: Path,
        out: Path,
        *,
        at: int = 0,
        moment: str = "before",
        end: str = "kill",
        kill_after: float = 0.0,
        sent: int = signal.SIGKILL,
    ) -> Ended:
        """One job in a process of its own, interrupted at point `at`, or by the signal `sent` after so many seconds."""
        job: dict[str, object] = {
            "subject": subject,
            "home": str(home),
            "out": str(out),
            "at": at,
            "moment": moment,
            "end": end,
        }
        job |= {"kill_after": kill_after, "sent": int(sent)}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        return Ended(told["code"], tuple(told["points"]), told["said"])


def main() -> None:
    import torch

    from ontogeny import plugins
    from tests.faults import subjects  # noqa: F401  (imported once, before the forks)

    torch.set_num_threads(1)
    for folder in ("architectures", "probes"):
        for name in plugins.list_plugins(folder):
            plugins.load_plugin(folder, name)
    for heavy in HEAVY:
        importlib.import_module(heavy)
    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            os._exit(_child(job, write))
        os.close(write)
        if job["kill_after"]:
            time.sleep(job["kill_after"])
            os.kill(child, job["sent"])  # not waited for yet, so the number is still its own
        with os.fdopen(read, "rb") as pipe:
            told = json.loads(pipe.read() or b"{}")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"code": code, "points": told.get("points", []), "said": told.get("said", "")}), flush=True)
    os._exit(0)  # taking every module apart costs a second


def _child(job: dict[str, Any], pipe: int) -> int:
    from ontogeny.errors import BadInput
    from tests.faults.subjects import SUBJECTS

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    points, code, said = Points(int(job["at"]), job["moment"], job["end"]), 0, ""
    try:
        with counted(points):
            SUBJECTS[job["subject"]].work(Path(job["home"]), Path(job["out"]))
    except Crash:
        code = 3
    except KeyboardInterrupt:
        code = 130
    except BadInput as error:
        code, said = 2, str(error)
    except BaseException:
        code, said = 1, traceback.format_exc()
    os.write(pipe, json.dumps({"points": points.seen, "said": said[-4000:]}).encode())
    os.close(pipe)
    return code


if __name__ == "__main__":
    main()
