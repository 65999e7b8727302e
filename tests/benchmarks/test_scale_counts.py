"""What is done behind the forward pass, in small: bytes that are read and rows that become Python objects, counted from outside.

Seconds of a shared machine prove nothing, counts do. The run is the one that `benchmarks/results_scale.py` times at full size.
"""

import collections
import copy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.results_scale import SETTINGS, Size, hold_back, make_run
from ontogeny import Concept, Lineage, Run
from ontogeny.jobs.audit import audit
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import fetch
from ontogeny.storage import parts
from ontogeny.storage import run as run_module

SIZE = Size(6, 3, 4, 2, 32)


@dataclass
class Counts:
    rows: int = 0
    """Of tables that DuckDB handed to Python."""
    bytes: collections.Counter[str] = field(default_factory=collections.Counter)
    """Of tensors, by kind."""
    calls: collections.Counter[str] = field(default_factory=collections.Counter)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    seen = Counts()

    def spy(module: Any, name: str, count: Any) -> None:
        original = getattr(module, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            seen.calls[name] += 1
            count(result, *args)
            return result

        monkeypatch.setattr(module, name, counted)

    def rows(table: Any, *_: Any) -> None:
        seen.rows += len(table)

    def tensors(found: Any, path: Path, *_: Any) -> None:
        of = found.values() if isinstance(found, dict) else [found]
        seen.bytes[path.parent.name] += sum(tensor.nbytes for tensor in of)

    def nothing(*_: Any) -> None: ...

    spy(run_module, "query_records", rows)
    spy(parts, "read_stored_tensors", tensors)
    spy(parts, "read_tensor_header", nothing)
    spy(parts, "_parse_index", nothing)
    spy(fetch, "file_digest", nothing)
    # The checkpoints were written a moment ago; a user's were not, so their digests are kept.
    monkeypatch.setattr(fetch, "CLOCK_TICK_NS", 0)
    spy(audit, "audit", nothing)
    return seen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Path]]:
    folder = tmp_path_factory.mktemp("scale")
    model, concepts = make_run(folder, SIZE)
    return folder / "run", model, concepts


def bytes_of(run: Run, kind: str, keys: list[str]) -> int:
    """Bytes of these tensors in all units."""
    read = run.scores if kind == "scores" else run.directions
    return sum(tensor.nbytes for unit in run.headers() for tensor in read(unit, keys).values())


def start(made: tuple[Path, Path, list[Path]], steps: str = "all") -> Run:
    """A start as in a process of its own: nothing is remembered."""
    folder, model, concepts = made
    for memory in (parts._holders, parts._headers, parts._units, parts._indexes):
        memory.clear()
    lineage = Lineage.open(str(model)).select(steps)
    return trace(lineage, [Concept.from_file(path) for path in concepts], folder, SETTINGS)


def test_relating_reads_each_tensor_once_and_a_second_start_reads_none(
    made: tuple[Path, Path, list[Path]], counts: Counts
) -> None:
    late = hold_back(made[0], SIZE)
    run = start(made, f"0-{late.last}")
    first = copy.deepcopy(counts)
    rows = int(run.query("select count(*) as n from records").n.iloc[0])
    methods = ("logistic", "mass_mean")
    scores = bytes_of(run, "scores", [f"{method}/{part}" for method in methods for part in SIZE.sites])
    directions = bytes_of(run, "directions", [f"{method}/resid/direction" for method in methods])
    answers = bytes_of(run, "scores", ["answers"])
    sites = sum(map(len, SIZE.sites.values()))
    # Once for the nulls, and the best site again for its curve, with the answers.
    assert first.bytes["scores"] <= scores * (1 + 2 / sites) + answers
    # Once for drift, and the last checkpoint again for its neighbours and the other concepts.
    assert first.bytes["directions"] <= directions * (1 + 2 / (SIZE.checkpoints - 1))
    assert first.rows <= 0.1 * rows
    assert first.calls["file_digest"] == SIZE.checkpoints - 1

    late.put_back()
    _reset(counts)
    start(made)
    assert counts.bytes["scores"] <= scores * (1 / (SIZE.checkpoints - 1) + 2 / sites) + 2 * answers
    assert counts.calls["file_digest"] == 1
    assert counts.calls["audit"] == 1

    _reset(counts)
    start(made)
    assert not counts.bytes
    assert counts.rows <= 10 * SIZE.concepts
    assert counts.calls["_parse_index"] == 1
    for name in ("file_digest", "audit", "read_tensor_header"):
        assert counts.calls[name] == 0, name


def _reset(counts: Counts) -> None:
    counts.rows = 0
    counts.bytes.clear()
    counts.calls.clear()


def test_second_start_and_query_import_no_more_than_they_need(made: tuple[Path, Path, list[Path]]) -> None:
    folder, model, concepts = made
    start(made)
    words = ["trace", str(model), *(word for path in concepts for word in ("-c", str(path)))]
    words += ["--sites", SETTINGS.sites, "--no-untrained", "--quiet", "-o", str(folder)]
    code = (
        "import sys\n"
        "from ontogeny import Run\n"
        f"assert len(Run.open({str(folder)!r}).records(\"metric = 'auroc' and site = 'resid.1'\"))\n"
        "assert not {'torch', 'transformers', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "from ontogeny.cli import main\n"
        f"sys.argv[1:] = {words!r}\n"
        "main()\n"
        "assert not {'transformers.modeling_utils', 'scipy', 'sklearn', 'ontogeny.activations'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
