"""Jobs that are interrupted, small and deterministic: trace, transfer, evaluation, monitor, comparison, and two kinds of training.

`work(home, out)` runs the job, `finished(out)` names its finished units, `left(out)` is everything that a later reader can see.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from ontogeny.data.concept import Concept
from ontogeny.data.verdict_question import VerdictQuestion
from ontogeny.jobs.compare.compare import compare
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.jobs.evaluate.evaluate import evaluate
from ontogeny.jobs.evaluate.plan import EvaluationSettings
from ontogeny.jobs.monitor.frozen_probes import monitor_frozen_probes
from ontogeny.jobs.trace.trace import trace
from ontogeny.jobs.transfer.plan import TransferSettings
from ontogeny.jobs.transfer.transfer import transfer
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.parts import read_holders
from ontogeny.storage.run import Run
from ontogeny.training import checkpoints, train
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.recorder import RecordingPlan
from ontogeny.training.toy_models import in_world
from ontogeny.training.toy_models.in_world import ToyModelSize, ToyStage
from tests.helpers.planted_lineages import NO, YES, rows, save_run, write

QUICK = TraceSettings(sites="resid", fits=("logistic", "mass_mean"), resamples=100, permutations=100)
DIARY = "computed.txt"
"""Beside `out`: a line for every unit that is computed, whatever becomes of it."""


@dataclass(frozen=True)
class Subject:
    work: Callable[[Path, Path], object]
    finished: Callable[[Path], set[str]]
    left: Callable[[Path], Mapping[str, str]]


def prepare(home: Path) -> None:
    """Checkpoints and a concept of forty texts, read by the traces."""
    save_run(home / "run", {1: 0.0, 2: 8.0})
    write(home / "small.csv", rows(characters=20))
    write(home / "asked.csv", rows(characters=20, answers=True))


# --- jobs over checkpoints --------------------------------------------------------------------------------------------------


@contextmanager
def _noted_units(out: Path) -> Iterator[None]:
    keep = Run.keep

    def kept(run: Run, unit: str, *rest: Any, **named: Any) -> None:
        _note(out, unit)
        keep(run, unit, *rest, **named)

    with mock.patch.object(Run, "keep", kept):
        yield


def trace_it(home: Path, out: Path) -> None:
    with _noted_units(out):
        trace(Lineage.open(home / "run"), [Concept.from_file(home / "small.csv")], out, QUICK)


def transfer_it(home: Path, out: Path) -> None:
    """Traces first, and tries the vectors of both checkpoints on each other."""
    settings = TransferSettings(controls=20, shuffles=20, site="resid.1")
    with _noted_units(out):
        transfer(Lineage.open(home / "run"), [Concept.from_file(home / "small.csv")], out, settings, reading=QUICK)


def evaluate_it(home: Path, out: Path) -> None:
    settings = EvaluationSettings(alphas=(0.0, 1.0), controls=20, shuffles=0, samples=1, tokens=2, limit=8)
    with _noted_units(out):
        evaluate(Lineage.open(home / "run"), [Concept.from_file(home / "asked.csv")], out, settings)


def monitor_it(home: Path, out: Path) -> None:
    """Traces first, and reads the last checkpoint again with the probes that were frozen there."""
    trace_it(home, out)
    with _noted_units(out):
        monitor_frozen_probes(Run.open(out), [Concept.from_file(home / "small.csv")], rates=(0.1,))


def compare_it(home: Path, out: Path) -> None:
    """Two studies of two checkpoints."""
    lineage, texts = Lineage.open(home / "run"), tuple(f"how to paint {c} now?" for c in "abcdef")
    asked = Concept.from_file(home / "asked.csv")
    inputs = StudyInputs(
        statements=(asked,),
        questions=asked.answers,
        neutral=texts,
        question=VerdictQuestion("", YES, NO, shots=0),
    )
    with _noted_units(out):
        compare(lineage, inputs, out, "truthfulness,confidence", stages=f"{lineage.stages[0].name}:*")


def parts(out: Path) -> set[str]:
    return set(read_holders(out).parts)


def costly_parts(out: Path) -> set[str]:
    """Without what is computed from rows, or read again, at each start."""
    return {name for name in parts(out) if not name.startswith(("verdicts-", "frozen-"))}


def rows_of(out: Path) -> dict[str, str]:
    """All rows, sorted, all columns; and which files there are. The ledger tells of time, so its length may differ."""
    run = Run.open(out)
    found = run.records()
    found["coords"] = found.coords.map(lambda coords: json.dumps(dict(coords), sort_keys=True))
    table = found.sort_values(list(found.columns), ignore_index=True).to_csv(float_format="%.17g")
    names = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and p.name != "ledger.jsonl")
    about = json.loads(run.about_path.read_text(encoding="utf-8"))
    copied = about == json.loads((out / "run.json.bak").read_text(encoding="utf-8"))
    logged = Counter(unit for line in run.ledger() for unit in line.get("units", []))
    twice = sorted(unit for unit, times in logged.items() if times > 1)
    return {
        "rows": table,
        "files": "\n".join(names),
        "about": f"{json.dumps(about, indent=0)} {copied}",
        "logged twice": "\n".join(twice),
    }


# --- a model that is raised -------------------------------------------------------------------------------------------------


def raise_it(home: Path, out: Path) -> None:
    stages = {
        name: ToyStage(TrainingConfig(4, 1e-3, warmup=1), rows=4, checkpoints=3, first=1)
        for name in in_world.TOY_STAGES
    }
    few = ToyModelSize(stages, {"families": 18, "potions": 20}, layers=1, heads=2, width=32)
    train = in_world.train

    def told(batches: Any, objective: Any, config: Any, folder: Path, **named: Any) -> Path:
        return train(
            lambda step: (_note(out, f"{folder.name}/{step}"), batches(step))[1], objective, config, folder, **named
        )

    with mock.patch.object(in_world, "TOY_MODEL_SIZES", {"few": few}), mock.patch.object(in_world, "train", told):
        in_world.train_toy_model(out, "few", stages=("base", "sft"))


def steps_of(out: Path) -> set[str]:
    """The steps that a checkpoint and its state, or the last checkpoint, hold fast."""
    found = set()
    for folder in (path for path in (out, *out.glob("[!.]*")) if path.is_dir()):
        last = checkpoints.last_resumable_step(folder) or 0
        if (folder / "checkpoint-4").is_dir():
            last = 4
        found |= {f"{folder.name}/{step}" for step in range(1, last + 1)}
    return found


def bytes_of(out: Path) -> dict[str, str]:
    """Every file, bit for bit; transformers writes its own version of nothing that changes between two runs."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


# --- a training that is recorded --------------------------------------------------------------------------------------------


def record_it(home: Path, out: Path) -> None:
    def points(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        _note(out, f"{out.name}/{step}")
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return x, x.square()

    def squares(network: nn.Module, batch: Any, reference: Any = None) -> torch.Tensor:
        return (network(batch[0]) - batch[1]).square().mean()

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 4))

    plan = RecordingPlan(states_every=3)
    config = TrainingConfig(steps=4, warmup=1)
    train.train_module(points, squares, config, out, make=make, save_at=(0, 2, 4), record=plan)


# --- the control: a job that writes as one should not -------------------------------------------------------------------------


def careless_it(home: Path, out: Path) -> None:
    """Writes in place, takes a file that is there for a whole one, and computes before it looks."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b", "c"):
        _note(out, name)
        path = out / name
        if not path.exists():
            with path.open("w", encoding="utf-8") as file:
                file.write(name * 100)
                file.flush()
                os.fsync(file.fileno())


def names_in(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def _note(out: Path, unit: str) -> None:
    with (out.parent / DIARY).open("a", encoding="utf-8") as file:
        file.write(f"{unit}\n")


SUBJECTS: Mapping[str, Subject] = {
    "trace": Subject(trace_it, parts, rows_of),
    "transfer": Subject(transfer_it, parts, rows_of),
    "evaluate": Subject(evaluate_it, costly_parts, rows_of),
    "monitor": Subject(monitor_it, costly_parts, rows_of),
    "compare": Subject(compare_it, parts, rows_of),
    "raise": Subject(raise_it, steps_of, bytes_of),
    "record": Subject(record_it, steps_of, bytes_of),
    "careless": Subject(careless_it, names_in, bytes_of),
}
