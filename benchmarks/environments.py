"""One virtual environment per peer, from its pinned file, under `.bench/`; a peer that cannot be installed gives a row with the reason."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent / ".bench"


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, created on first use.

    Raises:
        RuntimeError: its packages cannot be installed; the last line that pip said.
    """
    folder, pins = ROOT / "env" / peer, HERE / "peers" / f"{peer}.txt"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text() == pins.read_text():
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # Pinned torch first and alone: the index as set up here then gives the CPU wheel.
    for wanted in (["torch==2.13.0"], ["-r", str(pins)]):
        command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wanted]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise RuntimeError(said[-1] if said else "pip failed")
    ready.write_text(pins.read_text())
    return python


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in (HERE / "peers").glob("*.txt")):
        try:
            print(name, python_of(name), flush=True)
        except RuntimeError as error:
            print(name, "fails:", error, flush=True)
