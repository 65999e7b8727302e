"""A broken checkpoint does not stop the others, and a killed job resumes."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.dynamics import summary
from ontogeny.dynamics.emergence import ConceptSeries
from ontogeny.jobs.progress import TraceProgress
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.parts import read_holders
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import planted
from tests.helpers.subprocesses import fork
from tests.helpers.trace_runs import QUICK, same

COMMAND = "from ontogeny.cli import main; main()"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_broken_checkpoint_does_not_stop_the_others(home: Path, tmp_path: Path, say: Say) -> None:
    folder = Path(shutil.copytree(home / "few", tmp_path / "few"))
    network = planted(0.0)
    with torch.no_grad():
        network.gpt_neox.embed_in.weight[7, 7] = torch.inf
    network.save_pretrained(folder / "checkpoint-4")
    cut = Path(shutil.copytree(folder / "checkpoint-2", folder / "checkpoint-5")) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-9])
    shown = say("trace", folder, "-c", home / "small.csv", "-o", tmp_path / "out", "--sites", "resid")
    assert shown.code == 1
    run = Run.open(tmp_path / "out")
    assert set(run.records("metric = 'auroc' and control is null").step) == {1, 2, 3}
    failures = {f["checkpoint"]: f["reason"] for f in run.about["failures"]}
    assert set(failures) == {"checkpoint-4", "checkpoint-5"}
    assert "not finite" in failures["checkpoint-4"]
    assert "cut off" in failures["checkpoint-5"]
    for name in failures:
        assert f"not traced: pretrain {name}: " in shown.out
    assert "Traceback" not in shown.err
    ledger = [(line["checkpoint"], "failed" in line) for line in run.ledger()]
    assert ledger[-1] == ("checkpoint-4", True)


def test_killed_job_resumes(home: Path, tmp_path: Path) -> None:
    argv = ["trace", home / "rise", "-c", home / "small.csv", "-c", home / "others.jsonl", "--sites", "resid,head"]
    argv += ["--steps", "4-16", "-o", tmp_path / "killed" / "out"]
    process = fork(COMMAND, *argv, env=ENVIRONMENT)
    records = tmp_path / "killed" / "out" / "records"
    limit = time.monotonic() + 120
    # Surface of both, the floor of both, and one unit at least: killed in the middle of what follows.
    while len(list(records.glob("*.parquet")) if records.is_dir() else []) < 7:
        assert process.ended() is None, process.said("err")
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.kill()
    assert process.ended() == -signal.SIGKILL, process.said("err")
    run = Run.open(tmp_path / "killed" / "out")
    finished = set(read_holders(run.folder).parts)
    assert not run.about["finished"]
    lineage, concepts = (
        Lineage.open(home / "rise").select("4-16"),
        [Concept.from_file(home / n) for n in ("small.csv", "others.jsonl")],
    )
    logged = len(run.ledger())
    trace(lineage, concepts, run.folder, TraceSettings(sites="resid,head"))
    again = {unit for line in run.ledger()[logged:] for unit in line["units"]}
    assert again
    assert not again & finished
    assert finished <= set(read_holders(run.folder).parts)
    same(run, trace(lineage, concepts, tmp_path / "whole" / "out", TraceSettings(sites="resid,head")))
    assert run.about["finished"]


def test_job_killed_before_its_first_unit_resumes(home: Path, tmp_path: Path, small: Concept, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    lineage = Lineage.open(home / "few").select("1")
    for name in ("jobs.trace.surface.surface_baselines.audit_surface", "models.reusable.open_model"):
        with monkeypatch.context() as patch:
            patch.setattr(f"ontogeny.{name}", kill)
            patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # a killed process cleans nothing up
            patch.setattr("pathlib.Path.rmdir", lambda *_: None)
            with pytest.raises(Killed):
                trace(lineage, [small], tmp_path / "out", QUICK)
    assert (tmp_path / "out" / "run.json").is_file()
    run = trace(lineage, [small], tmp_path / "out", QUICK)
    assert run.about["finished"]
    assert (
        run.about["concepts"][0]["warnings"]
        == trace(lineage, [small], tmp_path / "b", QUICK).about["concepts"][0]["warnings"]
    )


def test_interrupted_relating_resumes(
    home: Path, tmp_path: Path, small: Concept, others: Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary of each concept is kept when it is made, and each step is told with its own count."""
    lineage, concepts = Lineage.open(home / "few"), [small, others]
    whole = trace(lineage, concepts, tmp_path / "whole" / "out", QUICK)
    make, made = summary._concept_summary, []

    def stop_at_second(run: Run, series: ConceptSeries, *rest: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(series.design.concept.name)
        return make(run, series, *rest)

    monkeypatch.setattr(summary, "_concept_summary", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        trace(lineage, concepts, tmp_path / "cut" / "out", QUICK)
    cut = Run.open(tmp_path / "cut" / "out")
    visited = len(cut.ledger())
    assert made == [small.name]
    assert not cut.about["finished"]

    def remember(run: Run, series: ConceptSeries, *rest: Any) -> Any:
        made.append(series.design.concept.name)
        return make(run, series, *rest)

    seen: list[TraceProgress] = []
    monkeypatch.setattr(summary, "_concept_summary", remember)
    trace(lineage, concepts, cut.folder, QUICK, on_progress=seen.append)
    assert made == [small.name, others.name]
    assert len(cut.ledger()) == visited
    same(cut, whole)
    relating = [(now.checkpoints_done, now.checkpoints_total) for now in seen if now.phase == "relating"]
    assert relating[0] == (0, 2)
    assert relating[-1] == (1, 2)
