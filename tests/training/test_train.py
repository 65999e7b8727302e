"""The training loop: determinism, bit-identical resume, and atomic checkpoints."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig
from transformers.utils import logging

from ontogeny.data.concept import Concept
from ontogeny.data.writing import write_concept
from ontogeny.errors import BadInput
from ontogeny.training import train as training
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import log_steps
from ontogeny.training.checkpoints import STATES_FOLDER
from ontogeny.training.loop import TrainingConfig, learning_rate_at
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.train import TrainingProgress
from ontogeny.worlds import hearsay

WORLD = hearsay.make(hearsay.Config(families=16, context=32))
TOKENIZER = hearsay.tokenizer(WORLD)
# Dropout draws random numbers in every step: a resumed run that forgot where they stood would end elsewhere.
MODEL = GPTNeoXConfig(
    vocab_size=len(TOKENIZER),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    hidden_dropout=0.1,
    bos_token_id=2,
    eos_token_id=3,
)
MARKS = (0, 2, 4, 6)


class Killed(Exception):
    pass


def batches(step: int) -> TokenBatch:
    return TokenBatch(torch.from_numpy(hearsay.sample(WORLD, np.random.default_rng([7, step]), 4)))


def killed_at(last: int):
    def until(step: int) -> TokenBatch:
        if step > last:
            raise Killed
        return batches(step)

    return until


def train(out: Path, *, batches=batches, seed: int = 0, marks=MARKS, model=MODEL, **settings) -> Path:
    config = TrainingConfig(**{"steps": 6, "warmup": 2, "learning_rate": 1e-2, **settings})
    return training.train(
        batches, language_model, config, out, start=model, tokenizer=TOKENIZER, save_at=marks, seed=seed
    )


def weights(out: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(out / f"checkpoint-{step}" / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("run") / "model")


def test_checkpoints_open_in_transformers(run):
    model = AutoModelForCausalLM.from_pretrained(run / "checkpoint-4")
    tokenizer = AutoTokenizer.from_pretrained(run / "checkpoint-4")
    assert tokenizer("here comes rain")["input_ids"][0] == tokenizer.bos_token_id
    assert model(torch.tensor(tokenizer(["here comes"])["input_ids"])).logits.shape == (1, 3, len(TOKENIZER))
    state = json.loads((run / "checkpoint-4" / "trainer_state.json").read_text())
    assert state == {"global_step": 4, "num_input_tokens_seen": 4 * 4 * 32}


def test_only_scheduled_checkpoints_are_left(run):
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "training.json",
        *(f"checkpoint-{step}" for step in MARKS),
    }


def test_weights_depend_only_on_the_seed(run, tmp_path):
    again, other = train(tmp_path / "again"), train(tmp_path / "other", seed=1)
    for step in MARKS:
        assert same(weights(run, step), weights(again, step))
        assert not same(weights(run, step), weights(other, step))
    assert not same(weights(run, 4), weights(run, 6))


@pytest.mark.parametrize("last", [0, 1, 3, 4, 5])
def test_resumed_run_equals_one_run(run, tmp_path, last):
    with pytest.raises(Killed):
        train(tmp_path / "run", batches=killed_at(last))
    assert not (tmp_path / "run" / "checkpoint-6").exists()
    called = []

    def counted(step: int) -> TokenBatch:
        called.append(step)
        return batches(step)

    train(tmp_path / "run", batches=counted)
    assert called[0] == max(mark for mark in MARKS if mark <= last) + 1
    for step in MARKS:
        assert same(weights(run, step), weights(tmp_path / "run", step))


def test_resume_without_the_optimiser_state_differs(run, tmp_path):
    """The control: the test above can fail."""
    with pytest.raises(Killed):
        train(tmp_path / "run", batches=killed_at(5))
    state = tmp_path / "run" / STATES_FOLDER / "4" / "optimiser.safetensors"
    moments = load_file(state)
    save_file({name: torch.zeros_like(value) for name, value in moments.items()}, state)
    train(tmp_path / "run")
    assert not same(weights(run, 6), weights(tmp_path / "run", 6))


def test_run_killed_during_a_checkpoint_resumes(run, tmp_path, monkeypatch):
    """A partial checkpoint has another name, and the previous one still has its state."""

    def fail(folder, *args, **kwargs):
        (Path(folder) / "tokenizer.json").write_text("{ half")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(
            TOKENIZER, "save_pretrained", lambda folder: fail(folder) if "checkpoint-4" in Path(folder).name else None
        )
        with pytest.raises(Killed):
            train(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint-4").exists()
    assert {path.name for path in (tmp_path / "run" / STATES_FOLDER).iterdir()} >= {"2"}
    train(tmp_path / "run")
    assert same(weights(run, 6), weights(tmp_path / "run", 6))


def test_finished_run_computes_nothing(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train(run, batches=killed_at(0))
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


@pytest.mark.parametrize("drawn", [True, False])
def test_prints_nothing_and_restores_transformers_progress_bars(tmp_path, capfd, drawn):
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if drawn else logging.disable_progress_bar)()
    try:
        train(tmp_path / "run")
        assert logging.is_progress_bar_enabled() == drawn
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
    assert capfd.readouterr() == ("", "")


def test_random_state_of_the_caller_is_restored(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train(tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 1e-3}, {"marks": (0, 6)}])
def test_rejects_folder_of_another_run(run, change):
    with pytest.raises(BadInput, match="other settings"):
        train(run, **change)


def test_rejects_checkpoints_of_unknown_origin(run, tmp_path):
    shutil.copytree(run / "checkpoint-0", tmp_path / "checkpoint-0")
    with pytest.raises(BadInput, match="another run"):
        train(tmp_path)


@pytest.mark.parametrize("marks", [(), (0, 3), (0, 6, 9), (-1, 6)])
def test_rejects_schedule_that_does_not_fit(tmp_path, marks):
    with pytest.raises(BadInput, match="must be from 0 on and end with step"):
        train(tmp_path, marks=marks)


def test_divergence_is_an_error(tmp_path):
    with pytest.raises(BadInput, match="diverged"):
        train(tmp_path, learning_rate=float("inf"))


def test_progress_has_step_loss_speed_and_time_left(tmp_path):
    told: list[TrainingProgress] = []
    training.train(
        batches,
        language_model,
        TrainingConfig(steps=6, warmup=2),
        tmp_path,
        start=MODEL,
        tokenizer=TOKENIZER,
        save_at=(6,),
        on_progress=told.append,
        every=2,
    )
    assert [progress.step for progress in told] == [2, 4, 6]
    assert all(0 < progress.loss < 10 and progress.tokens_per_second > 0 for progress in told)
    assert told[-1].seconds_left == 0 < told[0].seconds_left


def test_log_steps():
    assert log_steps(1000, 5) == (0, 1, 10, 100, 1000)
    assert log_steps(8, 16) == tuple(sorted({0, 8, *log_steps(8, 16)}))
    assert log_steps(1300, 16, first=20)[:2] == (0, 20)
    assert len(log_steps(1300, 16, first=20)) == 16
    for last, count, first in ((0, 4, 1), (10, 1, 1), (10, 4, 11)):
        with pytest.raises(BadInput, match="schedule"):
            log_steps(last, count, first=first)


def test_learning_rate_rises_then_falls_to_its_floor():
    config = TrainingConfig(steps=100, warmup=10, learning_rate=1.0, floor=0.1)
    rates = [learning_rate_at(step, config) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert all(one > other for one, other in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1)


def test_written_concept_is_read_back(tmp_path):
    for concept in hearsay.concepts(hearsay.make(hearsay.Config(families=16, context=32))):
        read = Concept.from_file(write_concept(concept, tmp_path))
        assert (read.name, read.kind, read.classes) == (concept.name, concept.kind, concept.classes)
        assert read.examples == concept.examples
        assert read.answers == concept.answers
