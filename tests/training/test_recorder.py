"""Recordings: a run replays to the same bits, and the figures of a step reproduce its update."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from ontogeny.errors import BadInput
from ontogeny.lineage import Lineage
from ontogeny.training.batches import PromptBatch, TokenBatch, UnlearningBatch
from ontogeny.training.checkpoint_schedule import steps_around
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.objectives.dpo import Preference
from ontogeny.training.objectives.grpo import GroupRelative
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.objectives.unlearning import Unlearn
from ontogeny.training.recorder import RecordingPlan, batch_fingerprint, read_recording, recorded_states
from ontogeny.training.replay import densify, replay
from ontogeny.training.train import train, train_module
from tests.helpers.tiny_models import VOCAB, byte_tokenizer, tiny_model

TOKENIZER = byte_tokenizer()
MARKS = (0, 4, 12)
PLAN = RecordingPlan(states_every=5)


class Killed(Exception):
    pass


def batches(step: int, *, seed: int = 0) -> TokenBatch:
    indices = torch.randint(0, 50, (3,), generator=torch.Generator().manual_seed(1000 * seed + step))
    return TokenBatch((indices[:, None] * 7 + torch.arange(9)) % VOCAB, indices=indices)


def other_batches(step: int) -> TokenBatch:
    return batches(step, seed=1)


def config(**settings) -> TrainingConfig:
    return TrainingConfig(**{"steps": 12, "warmup": 3, "learning_rate": 1e-2, "clip": 0.5, **settings})


def small():
    # Dropout draws random numbers in every step: a replay that forgot where they stood would end elsewhere.
    model = tiny_model("gpt_neox").config
    model.hidden_dropout = 0.1
    return model


def run(out: Path, *, batches=batches, objective=language_model, plan=PLAN, **settings) -> Path:
    return train(
        batches, objective, config(**settings), out, start=small(), tokenizer=TOKENIZER, save_at=MARKS, record=plan
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("recorded") / "run")


def saved(out: Path, step: int) -> dict[str, torch.Tensor]:
    folder = out / f"checkpoint-{step}"
    if (folder / "config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return load_file(folder / "model.safetensors")


def equal(network: nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(network.state_dict()[name], value) for name, value in tensors.items())


def test_every_step_has_a_row(recorded):
    rows = read_recording(recorded)
    assert [row.step for row in rows] == list(range(1, 13))
    assert rows[0].rate == pytest.approx(1e-2 / 3)
    assert rows[3].examples == batches(4).indices.tolist()
    assert rows[3].batch == batch_fingerprint(batches(4)) != batch_fingerprint(other_batches(4))
    assert all(row.betas == (0.9, 0.98) and row.momentum is None and row.tokens == 27 for row in rows)
    assert all(row.clip == pytest.approx(min(1, 0.5 / row.norm), rel=1e-4) for row in rows)
    assert any(row.clip < 1 for row in rows)
    assert sorted(recorded_states(recorded)) == [0, 5, 10]


@pytest.mark.parametrize("span", [(0, 4), (4, 12), (7, 12), (11, 12)])
def test_replay_is_bit_identical(recorded, span):
    torch.manual_seed(span[0])
    seen = []
    network = replay(
        recorded,
        *span,
        batches=batches,
        objective=language_model,
        watch=lambda session, batch: seen.append(session.step),
    )
    assert equal(network, saved(recorded, span[1]))
    assert not equal(network, saved(recorded, 0))
    assert seen == list(range(*span))


def test_replay_from_seed_only(tmp_path):
    out = run(tmp_path / "run", plan=RecordingPlan())
    assert sorted(recorded_states(out)) == [0]
    assert equal(replay(out, 9, 12, batches=batches, objective=language_model), saved(out, 12))


def test_replay_without_the_random_state_differs(recorded, tmp_path):
    """The control: the tests above can fail."""
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(recorded, copy)
    shutil.copy(copy / "recording/states/10/random.safetensors", copy / "recording/states/5/random.safetensors")
    assert not equal(replay(copy, 5, 12, batches=batches, objective=language_model), saved(copy, 12))


def test_replay_rejects_other_batches_objectives_and_steps(recorded, tmp_path):
    with pytest.raises(BadInput, match="batch of step 6"):
        replay(recorded, 5, 12, batches=other_batches, objective=language_model)
    with pytest.raises(BadInput, match="must be in the recording"):
        replay(recorded, 5, 13, batches=batches, objective=language_model)
    with pytest.raises(BadInput, match="was trained with"):
        replay(recorded, 5, 12, batches=batches, objective=Preference())
    with pytest.raises(BadInput, match="no recording"):
        replay(tmp_path, 0, 1, batches=batches, objective=language_model)
    with pytest.raises(BadInput, match="states_every"):
        RecordingPlan(states_every=-1)


@pytest.mark.parametrize("last", [2, 6, 11])
def test_killed_and_resumed_run_has_the_same_recording(recorded, tmp_path, last):
    def until(step: int) -> TokenBatch:
        if step > last:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        run(tmp_path / "run", batches=until)
    path = tmp_path / "run" / "recording" / "steps.jsonl"
    if last > 4:  # a row that was cut off while it was written
        path.write_text(path.read_text() + '{"step": 5, "rate"')
    run(tmp_path / "run")
    assert path.read_bytes() == (recorded / "recording" / "steps.jsonl").read_bytes()
    assert equal(replay(tmp_path / "run", 10, 12, batches=batches, objective=language_model), saved(recorded, 12))


def test_recording_does_not_change_the_run(recorded, tmp_path):
    out = train(batches, language_model, config(), tmp_path / "run", start=small(), tokenizer=TOKENIZER, save_at=MARKS)
    assert all(torch.equal(value, saved(recorded, 12)[name]) for name, value in saved(out, 12).items())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_recording_reproduces_each_update(tmp_path, optimiser):
    """Weights of each step follow from the previous ones, the batch and the row, which attribution differentiates."""
    settings = config(optimiser=optimiser, clip=0.05, weight_decay=0.3)

    def squares(network: nn.Module, batch: torch.Tensor, reference=None) -> torch.Tensor:
        return (network(batch) - batch.sum(-1, keepdim=True)).square().mean()

    def points(step: int) -> torch.Tensor:
        return torch.randn(5, 3, generator=torch.Generator().manual_seed(step))

    def make() -> nn.Module:
        return nn.Linear(3, 1)

    out = train_module(
        points, squares, settings, tmp_path / "run", make=make, save_at=range(13), record=RecordingPlan()
    )
    rows = read_recording(out)
    assert rows[0].tokens == 0
    assert (rows[0].momentum, rows[0].betas) == ((0.9, None) if optimiser == "sgd" else (None, (0.9, 0.98)))
    assert any(row.clip < 0.5 for row in rows)
    first = {name: torch.zeros_like(value) for name, value in saved(out, 0).items()}
    second = {name: torch.zeros_like(value) for name, value in saved(out, 0).items()}
    for row in rows:
        network = make()
        network.load_state_dict(saved(out, row.step - 1))
        squares(network, points(row.step)).backward()
        for name, parameter in network.named_parameters():
            decay = row.weight_decay if parameter.ndim >= 2 else 0.0
            gradient = row.clip * parameter.grad
            if optimiser == "sgd":
                first[name] = row.momentum * first[name] + gradient + decay * parameter.detach()
                expected = parameter - row.rate * first[name]
            else:
                first[name] = row.betas[0] * first[name] + (1 - row.betas[0]) * gradient
                second[name] = row.betas[1] * second[name] + (1 - row.betas[1]) * gradient**2
                up = first[name] / (1 - row.betas[0] ** row.step)
                down = (second[name] / (1 - row.betas[1] ** row.step)).sqrt() + row.eps
                expected = (1 - row.rate * decay) * parameter - row.rate * up / down
            torch.testing.assert_close(saved(out, row.step)[name], expected.detach(), rtol=1e-4, atol=1e-6)
    assert equal(replay(out, 3, 12, batches=points, objective=squares, make=make), saved(out, 12))
    with pytest.raises(BadInput, match="as `make`"):
        replay(out, 3, 12, batches=points, objective=squares)


def pieces(step: int) -> UnlearningBatch:
    return UnlearningBatch(batches(step), other_batches(step))


def prompts(step: int) -> PromptBatch:
    return PromptBatch(TokenBatch(batches(step).ids[:, :4]))


def low(prompt, answer) -> float:
    return float(sum(token < 50 for token in answer))


@pytest.mark.parametrize(
    ("batches", "objective"),
    [(pieces, Unlearn(beta=0.5)), (prompts, GroupRelative(low, group=4, new_tokens=3))],
    ids=["unlearn", "grpo"],
)
def test_replay_of_a_stage_with_a_reference_model(recorded, tmp_path, batches, objective):
    out = train(
        batches, objective, config(steps=6), tmp_path / "run", start=recorded / "checkpoint-12", tokenizer=TOKENIZER,
        save_at=(0, 6), record=RecordingPlan(states_every=2), freeze=("embed", "blocks.1"),
    )  # fmt: skip
    again = replay(out, 5, 6, batches=batches, objective=objective)
    assert equal(again, saved(out, 6))
    assert not equal(again, saved(out, 0))
    assert not again.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("record", [True, False])
def test_densify_adds_checkpoints(recorded, tmp_path, record):
    every = train(
        batches, language_model, config(), tmp_path / "every", start=small(), tokenizer=TOKENIZER, save_at=range(13)
    )
    out = run(tmp_path / "run", plan=PLAN if record else None)
    steps = steps_around(MARKS, 8, 3)
    assert steps == (6, 8, 10)
    assert densify(out, steps, batches=batches, objective=language_model) == steps
    assert [c.step for c in Lineage.open(out).checkpoints] == [0, 4, 6, 8, 10, 12]
    for step in (0, 4, 6, 8, 10, 12):
        new, old = out / f"checkpoint-{step}", every / f"checkpoint-{step}"
        assert {path.name for path in new.iterdir()} == {path.name for path in old.iterdir()}
        assert all((new / path.name).read_bytes() == path.read_bytes() for path in old.iterdir())
    assert densify(out, steps, batches=batches, objective=language_model) == ()
    assert json.loads((out / "training.json").read_text())["densified"] == [6, 8, 10]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    run(out, plan=PLAN if record else None)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_diverging_densify_keeps_nothing(tmp_path):
    out = run(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path != out}
    with pytest.raises(BadInput, match="does not reproduce"):
        densify(out, [8], batches=other_batches, objective=language_model)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path != out}
    with pytest.raises(BadInput, match="got 13"):
        densify(out, [13], batches=batches, objective=language_model)


def test_densify_rejects_unfinished_runs(tmp_path):
    with pytest.raises(BadInput, match="is not a run"):
        densify(tmp_path, [1], batches=batches, objective=language_model)

    def until(step: int) -> TokenBatch:
        if step > 6:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        run(tmp_path / "run", batches=until)
    with pytest.raises(BadInput, match="not finished"):
        densify(tmp_path / "run", [8], batches=batches, objective=language_model)


def test_rejects_recording_of_a_run_begun_without_it(tmp_path):
    """The settings of a run include its recording."""
    run(tmp_path / "run", plan=None)
    with pytest.raises(BadInput, match="record"):
        run(tmp_path / "run")
