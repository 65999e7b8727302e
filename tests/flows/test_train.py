"""`ontogeny train`: a small model in stages, resumed, checked again, on a text, killed; and errors."""

import gzip
import json
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ontogeny.cli._arguments import CHOICES
from ontogeny.data.concept import Concept
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.toy_models import in_world
from ontogeny.training.toy_models.in_world import TOY_MODEL_SIZES, ToyModelSize, ToyStage
from tests.helpers.command_line import Say
from tests.helpers.subprocesses import fork

LINE = "the old sea runs to the green hills and the rain falls on all that stand there"


@pytest.fixture
def raise_(say: Say) -> Say:
    return partial(say, "train")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A size that is raised in a second."""
    stages = {
        name: ToyStage(TrainingConfig(4, 1e-3, warmup=1), rows=4, checkpoints=3, first=1)
        for name in in_world.TOY_STAGES
    }
    size = ToyModelSize(stages, {"families": 18, "potions": 20}, layers=1, heads=2, width=32)
    monkeypatch.setattr(in_world, "TOY_MODEL_SIZES", {**TOY_MODEL_SIZES, "few": size})
    monkeypatch.setitem(CHOICES, "size", (*CHOICES["size"], "few"))


def written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_train_check_and_resume(raise_, tmp_path):
    out = tmp_path / "model"
    code, said, _ = raise_("--size", "few", "--out", out, "--quiet")
    assert code == 1  # four steps teach nothing, and the figures say so
    assert "goal 95%, missed" in said
    assert f"next: ontogeny trace {out / 'lineage.toml'}" in said
    before = written(out)
    for more in ((), ("--check",)):
        code, told, _ = raise_("--size", "few", "--out", out, "--json", *more)
        figures = json.loads(told)["figures"]
        assert code == 1
        assert {figure["stage"] for figure in figures} == {"base", "sft", "dpo"}
        assert all(f"{figure['value']:7.1%} of {figure['n']:3}" in said for figure in figures)
    assert written(out) == before
    lineage = Lineage.open(out)
    assert [c.stage for c in lineage.checkpoints] == ["base"] * 3 + ["sft"] * 3 + ["dpo"] * 3


def test_exit_code_is_0_if_goals_are_met(raise_, tmp_path, monkeypatch):
    from ontogeny.training.toy_models import world_checks

    raise_("--size", "few", "--out", tmp_path, "--quiet", "--stages", "base")
    monkeypatch.setattr(world_checks, "recall_accuracy", lambda *_: 0.96)
    code, said, _ = raise_("--out", tmp_path, "--check")
    assert code == 0
    assert "missed" not in said


def test_trained_model_can_be_traced(raise_, tmp_path):
    raise_("--size", "few", "--out", tmp_path / "model", "--quiet")
    concept = Concept.from_file(tmp_path / "model" / "concepts" / "forbidden.jsonl")
    settings = TraceSettings(sites="resid", fits=("mass_mean",), resamples=100, permutations=100)
    run = trace(Lineage.open(tmp_path / "model"), [concept], tmp_path / "run", settings)
    told = run.records("metric = 'auroc' and control is null and stage is not null")
    assert set(told["stage"]) == {"base", "sft", "dpo"}
    assert not run.about["failures"]


def test_dry_run_writes_nothing(raise_, tmp_path):
    code, said, _ = raise_("--size", "few", "--out", tmp_path / "model", "--dry-run", "--stages", "base,sft")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["base", "sft"]
    code, said, _ = raise_("--out", tmp_path / "model", "--dry-run", "--json")
    assert [stage["stage"] for stage in json.loads(said)["stages"]] == ["base", "sft", "dpo"]
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--size", "large"), "no size called 'large'"),
        (("--stages", "base,rlhf"), "no stage called 'rlhf'"),
        (("--stages", ","), "--stages must not be empty"),
        (("--world", "nursary"), "did you mean nursery"),
        (("--world", "corners", "--stages", "base"), "has no text for the stage base"),
        (("--size", "few", "--stages", "dpo"), "train sft first"),
        (("--check",), "no model was trained in"),
        (("--text-file", "absent.txt"), "there is no file absent.txt"),
        (("--text-file", "absent.txt", "--check"), "--check measures facts of a generated world"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_errors_are_one_line(raise_, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, said, errors = raise_("--out", "model", *args)
    assert code == 2
    assert message in errors
    assert errors.startswith("ontogeny: ")
    assert errors.count("\n") == 1
    assert not said
    assert not list(tmp_path.rglob("*.safetensors"))


def test_rejects_another_seed_in_the_same_folder(raise_, tmp_path):
    raise_("--size", "few", "--out", tmp_path, "--quiet", "--stages", "base")
    code, _, errors = raise_("--size", "few", "--out", tmp_path, "--quiet", "--seed", "1")
    assert code == 2
    assert "other settings (seed)" in errors


def test_check_rejects_unfinished_model(raise_, tmp_path):
    raise_("--size", "few", "--out", tmp_path, "--quiet", "--stages", "base")
    shutil.rmtree(tmp_path / "base" / "checkpoint-4")
    code, _, errors = raise_("--check", "--out", tmp_path)
    assert code == 2
    assert "resume the training of" in errors


def test_training_on_a_text(raise_, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text(f"{LINE}\n" * 700)
    given = ("--text-file", book, "--vocabulary", "270", "--steps", "5", "--out", tmp_path / "model")
    code, said, _ = raise_(*given, "--dry-run")
    assert code == 0
    assert "held-out tokens" in said
    assert not (tmp_path / "model").exists()
    code, said, _ = raise_(*given, "--quiet")
    assert code == 0
    assert said.startswith("held-out loss ")
    code, said, _ = raise_(*given, "--json")
    assert json.loads(said)["vocabulary"] == 270
    assert Lineage.open(tmp_path / "model").checkpoints[-1].step == 5
    code, _, errors = raise_("--check", "--out", tmp_path / "model")
    assert code == 2
    assert "trained on a text" in errors
    code, _, errors = raise_("--text-file", book, "--vocabulary", "2000", "--out", tmp_path / "other")
    assert code == 2
    assert "--vocabulary must be at most" in errors


def test_training_on_a_real_book(raise_, tmp_path, shared):
    book = tmp_path / "shakespeare.txt.gz"
    whole = gzip.decompress((shared / "text" / "tinyshakespeare.txt.gz").read_bytes())
    book.write_bytes(gzip.compress(whole[:250_000]))
    code, said, _ = raise_("--text-file", book, "--steps", "12", "--out", tmp_path / "model", "--json")
    figures = json.loads(said)
    assert code == 0
    assert figures["vocabulary"] == 2000
    assert figures["text_tokens"] > 60_000
    # Better than a uniform guess (log 2000 = 7.6), and far from what a longer training reaches.
    assert 4.5 < figures["heldout_loss"] < 7.3


def test_killed_and_resumed_command_gives_the_same_weights(raise_, tmp_path):
    """A separate process gets a SIGKILL during training."""
    book = tmp_path / "book.txt"
    book.write_text(f"{LINE}\n" * 700)
    given = ["--text-file", str(book), "--vocabulary", "270", "--steps", "24", "--quiet"]
    code, env = "from ontogeny.cli import main; main()", {**os.environ, "OMP_NUM_THREADS": "1"}
    started = fork(code, "train", *given, "--out", tmp_path / "killed", env=env)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "base" / "checkpoint-10").is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    started.kill()
    assert started.ended() == -signal.SIGKILL, started.said("err")
    assert not (tmp_path / "killed" / "base" / "checkpoint-24").exists()
    torch.set_num_threads(1)
    for folder in ("killed", "whole"):
        code, _, _ = raise_(*given, "--out", tmp_path / folder)
        assert code == 0
    one, other = (load_file(tmp_path / f / "base" / "checkpoint-24" / "model.safetensors") for f in ("killed", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
