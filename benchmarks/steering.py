"""Steered against unsteered batched generation, as CPU ratios within one process per tool: ours, a bare hook, and common tools.

Rounds are interleaved, each ratio is taken inside its round; a tool that cannot be installed or run is a row that says so.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import environments
import workload

HERE = Path(__file__).parent
MUST = 1.10
TOOLS = {
    # row: (tool, environment; None is this one)
    "Ontogeny": ("ours", None),
    "Ontogeny (last)": ("ours_last", None),
    "a bare forward hook": ("hook", None),
    "steering-vectors": ("steering_vectors", "steering_vectors"),
    "pyvene": ("pyvene", "pyvene"),
    "nnsight": ("nnsight", "nnsight"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="70m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--only", help="tools, separated by commas")
    told = parser.parse_args()
    work = workload.make(told.shape, 300, 1)
    wanted = told.only.split(",") if told.only else list(TOOLS)
    table = ["| tool | steered / unsteered | seconds unsteered, steered (median) | says |", "|---|---|---|---|"]
    for row in wanted:
        tool, environment = TOOLS[row]
        try:
            python = environments.python_of(environment) if environment else Path(sys.executable)
            found = run(python, tool, work, told.rounds, told.tokens)
            table.append(line(row, found))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            table.append(f"| {row} | – | | fails: {str(error)[:120]} |")
        print(table[-1], file=sys.stderr, flush=True)
    print("\n".join(table))


def run(python: Path, tool: str, work: workload.Work, rounds: int, tokens: int) -> dict:
    """The output of a program.

    Raises:
        RuntimeError: it failed; the last line it said.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    script = [python, HERE / "scripts" / "run_steered.py", tool, work.checkpoints[0], work.ids]
    command = [*script, "--rounds", str(rounds), "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    for text in done.stdout.splitlines():
        if text.startswith("RESULT "):
            return dict(json.loads(text.removeprefix("RESULT ")))
    said = [text for text in done.stderr.splitlines() if text.strip()]
    raise RuntimeError(said[-1] if said else f"{tool} ended with {done.returncode}")


def ratios(found: dict) -> list[float]:
    """One value per round."""
    seconds = found["seconds"]
    return [steered / plain for plain, steered in zip(seconds["plain"], seconds["steered"], strict=True)]


def line(row: str, found: dict) -> str:
    each = ratios(found)
    middle = statistics.median(each)
    held = "" if not row.startswith("Ontogeny") else " ✓" if middle <= MUST else f" above {MUST}"
    times = ", ".join(f"{statistics.median(found['seconds'][name]):.2f}" for name in ("plain", "steered"))
    return f"| {row} | {middle:.3f} ({min(each):.3f}–{max(each):.3f}){held} | {times} | {found['said']['steered']} |"


if __name__ == "__main__":
    main()
