"""Consecutive stages, frozen and copied parts, schedules, and networks that are not language models."""

import itertools
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Lineage
from ontogeny.training import checkpoint_schedule
from ontogeny.training.batches import PreferenceBatch, PromptBatch, TokenBatch, UnlearningBatch, pad_batch
from ontogeny.training.checkpoints import STATES_FOLDER
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.model_parts import matching_parameters, model_parts
from ontogeny.training.objectives.dpo import Preference
from ontogeny.training.objectives.grpo import GroupRelative
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.objectives.log_probs import answer_log_probs
from ontogeny.training.objectives.unlearning import Unlearn
from ontogeny.training.train import TrainingProgress, train, train_module
from tests.helpers.tiny_models import VOCAB, byte_tokenizer, tiny_model

TOKENIZER = byte_tokenizer()
CONFIG = TrainingConfig(steps=6, warmup=1, learning_rate=3e-3)


class Killed(Exception):
    pass


def draw(step: int, kind: int, *shape: int) -> torch.Tensor:
    return torch.randint(5, VOCAB, shape, generator=torch.Generator().manual_seed(10 * step + kind))


def texts(step: int) -> TokenBatch:
    return TokenBatch(draw(step, 0, 4, 12))


def questions(step: int) -> TokenBatch:
    return pad_batch(draw(step, 1, 3, 8).tolist(), [3, 4, 5])


def choices(step: int) -> PreferenceBatch:
    return PreferenceBatch(questions(step), pad_batch(draw(step, 2, 3, 6).tolist(), [2, 3, 4]))


def secrets(step: int) -> UnlearningBatch:
    return UnlearningBatch(questions(step), texts(step))


def prompts(step: int) -> PromptBatch:
    return PromptBatch(pad_batch([[5, 6], [7, 8, 9]]))


def length(prompt, answer) -> float:
    return float(sum(token < 50 for token in answer))


STAGES = {
    "sft": (questions, answers_only),
    "dpo": (choices, Preference(0.5)),
    "unlearn": (secrets, Unlearn()),
    "grpo": (prompts, GroupRelative(length, group=4, new_tokens=3)),
}


def base(out: Path, *, seed: int = 0, **more) -> Path:
    start = tiny_model("gpt_neox", context=32).config
    return train(
        texts, language_model, CONFIG, out, start=start, tokenizer=TOKENIZER, save_at=(0, 6), seed=seed, **more
    )


def stage(name: str, start: Path, out: Path, *, batches=None, **more) -> Path:
    made, objective = STAGES[name]
    return train(batches or made, objective, CONFIG, out, start=start, tokenizer=TOKENIZER, save_at=(0, 3, 6), **more)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return base(tmp_path_factory.mktemp("base") / "base") / "checkpoint-6"


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", STAGES)
def test_later_stage_starts_from_its_checkpoint_and_resumes_bit_identically(start, tmp_path, name):
    run = stage(name, start, tmp_path / "run")
    assert (run / "checkpoint-0" / "model.safetensors").read_bytes() == (start / "model.safetensors").read_bytes()
    assert not same(saved(run / "checkpoint-3"), saved(run / "checkpoint-6"))

    def until(step: int):
        if step > 4:
            raise Killed
        return STAGES[name][0](step)

    with pytest.raises(Killed):
        stage(name, start, tmp_path / "again", batches=until)
    assert Lineage.open(tmp_path / "again").checkpoints[-1].step == 3
    stage(name, start, tmp_path / "again")
    for step in (0, 3, 6):
        assert same(saved(run / f"checkpoint-{step}"), saved(tmp_path / "again" / f"checkpoint-{step}"))


def test_stages_are_one_lineage(start, tmp_path):
    lineage = Lineage.open(start.parent, stage="base")
    for name in ("sft", "dpo"):
        stage(name, Path(lineage.checkpoints[-1].source), tmp_path / name)
        lineage = lineage.with_stage(name, tmp_path / name)
    assert [s.name for s in lineage.stages] == ["base", "sft", "dpo"]
    assert [c.step for c in lineage.stage("dpo").checkpoints] == [0, 3, 6]
    assert lineage.stage("sft").checkpoints[-1].tokens == 6 * 24


def test_reference_of_preference_is_the_start_of_the_stage(start, tmp_path):
    """With one batch for all steps, the chosen answers gain on the rejected ones relative to the start."""
    run = stage("dpo", start, tmp_path / "run", batches=lambda step: choices(1))

    @torch.no_grad()
    def margin(folder: Path) -> float:
        network = AutoModelForCausalLM.from_pretrained(folder).eval()
        return float(
            (answer_log_probs(network, choices(1).chosen) - answer_log_probs(network, choices(1).rejected)).mean()
        )

    assert margin(run / "checkpoint-6") > margin(run / "checkpoint-3") > margin(run / "checkpoint-0")


def test_rejects_another_start_in_the_same_folder(start, tmp_path):
    run = stage("sft", start, tmp_path / "run")
    other = base(tmp_path / "other", seed=1) / "checkpoint-6"
    with pytest.raises(BadInput, match="model"):
        stage("sft", other, run)
    with pytest.raises(BadInput, match="objective"):
        train(questions, language_model, CONFIG, run, start=start, tokenizer=TOKENIZER, save_at=(0, 3, 6))


def test_rejects_invalid_starts(start, tmp_path):
    with pytest.raises(BadInput, match="no folder"):
        stage("sft", tmp_path / "nowhere", tmp_path / "run")
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_bytes((start / "config.json").read_bytes())
    (half / "model.safetensors").write_bytes((start / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut off"):
        stage("sft", half, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unreadable_state_is_an_error(start, tmp_path):
    def until(step: int):
        if step > 4:
            raise Killed
        return questions(step)

    with pytest.raises(Killed):
        stage("sft", start, tmp_path / "run", batches=until)
    (tmp_path / "run" / STATES_FOLDER / "3" / "network.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="cannot be read"):
        stage("sft", start, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint-3" / "model.safetensors").is_file()


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gpt2"])
def test_every_parameter_is_in_one_part(family):
    network = tiny_model(family)
    parts = model_parts(network)
    expected = {"embed", "norms", *(f"blocks.{layer}.{part}" for layer in (1, 2) for part in ("attn", "mlp"))}
    expected |= {"gpt_neox": {"unembed"}, "llama": set(), "gpt2": {"positions"}}[family]  # llama, gpt2: tied
    assert set(parts) == expected
    names = list(itertools.chain.from_iterable(parts.values()))
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    attention, mlp = parts["blocks.2.attn"], parts["blocks.2.mlp"]
    assert all(".1." in name and "attn" in name.replace("attention", "attn") for name in attention)
    assert all(".1." in name and "mlp" in name for name in mlp)
    assert all("norm" in name.replace("ln_", "norm") for name in parts["norms"])
    assert set(matching_parameters(network, ["blocks.2"])) == {*attention, *mlp}
    assert set(matching_parameters(network, ["blocks.*.mlp"])) == {*parts["blocks.1.mlp"], *mlp}
    with pytest.raises(BadInput, match="did you mean"):
        matching_parameters(network, ["blocks.3.mlp"])


def changed(one: Path, other: Path) -> set[str]:
    networks = [AutoModelForCausalLM.from_pretrained(folder) for folder in (one, other)]
    before, after = (dict(network.named_parameters()) for network in networks)
    parts = model_parts(networks[0])
    return {part for part, names in parts.items() if any(not torch.equal(before[n], after[n]) for n in names)}


def test_frozen_parts_do_not_change(start, tmp_path):
    run = stage("sft", start, tmp_path / "run", freeze=("embed", "unembed", "norms", "blocks.1", "blocks.2.mlp"))
    assert changed(run / "checkpoint-0", run / "checkpoint-6") == {"blocks.2.attn"}
    with pytest.raises(BadInput, match="nothing to train"):
        stage("sft", start, tmp_path / "none", freeze=("embed", "unembed", "norms", "blocks"))
    stage("sft", start, tmp_path / "none", freeze=("embed",))  # a run that never began does not stand in the way


def test_parts_are_copied_from_another_run(start, tmp_path):
    other = base(tmp_path / "other", seed=1)
    mixed = base(tmp_path / "mixed", seed=1, init={"blocks.*.attn": start}, freeze=("blocks.*.attn",))
    assert changed(other / "checkpoint-0", mixed / "checkpoint-0") == {"blocks.1.attn", "blocks.2.attn"}
    for checkpoint in (mixed / "checkpoint-0", mixed / "checkpoint-6"):
        assert not {"blocks.1.attn", "blocks.2.attn"} & changed(start, checkpoint)
    large = tmp_path / "large"
    network = tiny_model("gpt_neox").config
    network.hidden_size = 64
    AutoModelForCausalLM.from_config(network).save_pretrained(large)
    with pytest.raises(BadInput, match="same architecture"):
        base(tmp_path / "run", init={"embed": large})


def test_schedule_steps():
    assert checkpoint_schedule.parse_schedule("every:4", 10) == (0, 4, 8, 10)
    assert checkpoint_schedule.parse_schedule("log:5", 1000) == (0, 1, 10, 100, 1000)
    assert checkpoint_schedule.parse_schedule("log:4:10", 1000) == (0, 10, 100, 1000)
    assert checkpoint_schedule.parse_schedule("sqrt:5", 100) == (0, 1, 16, 49, 100)
    assert checkpoint_schedule.parse_schedule("at:1,5,9", 10) == (1, 5, 9, 10)
    assert checkpoint_schedule.parse_schedule("every:50 + at:3", 100) == (0, 3, 50, 100)
    for text in (
        "all",
        "every",
        "every:0",
        "every:2:3",
        "log:1",
        "log:4:20",
        "at:11",
        "at:",
        "sqrt:4:1:2",
        "at:-1",
        "",
    ):
        with pytest.raises(BadInput, match=r"schedule|steps must be 0 to 10"):
            checkpoint_schedule.parse_schedule(text, 10)


def test_steps_around_an_event():
    saved_at = (0, 100, 200, 400)
    assert checkpoint_schedule.steps_around(saved_at, 150, 3) == (125, 150, 175)
    assert checkpoint_schedule.steps_around(saved_at, 200, 2) == (300,)  # 200 itself is there
    assert checkpoint_schedule.steps_around(saved_at, 200, 5) == (150, 250, 300, 350)
    assert checkpoint_schedule.steps_around((0, 1, 2), 1, 9) == ()
    assert set(checkpoint_schedule.steps_around(saved_at, 150, 1000)) == set(range(101, 200))
    for event, k in ((500, 3), (-1, 3), (150, 0)):
        with pytest.raises(BadInput, match="around"):
            checkpoint_schedule.steps_around(saved_at, event, k)


def squares(network: nn.Module, batch, reference=None) -> torch.Tensor:
    x, y = batch
    return (network(x) - y).square().mean()


def points(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return x, x.square()


def perceptron() -> nn.Module:
    # Running means are no parameters, and a resumed run needs them too.
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.ReLU(), nn.Linear(8, 4))


def test_train_module(tmp_path):
    go = partial(train_module, objective=squares, config=CONFIG, make=perceptron, save_at=(0, 3, 6))
    told: list[TrainingProgress] = []
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    run = go(points, out=tmp_path / "run", on_progress=told.append, every=3)
    assert torch.equal(torch.rand(2), expected)
    assert [progress.step for progress in told] == [3, 6]

    def until(step: int):
        if step > 5:
            raise Killed
        return points(step)

    with pytest.raises(Killed):
        go(until, out=tmp_path / "again")
    go(points, out=tmp_path / "again")
    for step in (0, 3, 6):
        assert same(saved(run / f"checkpoint-{step}"), saved(tmp_path / "again" / f"checkpoint-{step}"))
    assert json.loads((run / "checkpoint-3" / "trainer_state.json").read_text()) == {"global_step": 3}
    network = perceptron()
    network.load_state_dict(saved(run / "checkpoint-6"), strict=False)
    assert squares(network.eval(), points(9)) < squares(perceptron().eval(), points(9))
    with pytest.raises(BadInput, match="model"):
        go(points, out=run, make=lambda: nn.Linear(4, 4))


def test_rejects_invalid_configurations():
    with pytest.raises(BadInput, match="at least one"):
        TrainingConfig(steps=0)
    with pytest.raises(BadInput, match="did you mean adamw"):
        TrainingConfig(steps=1, optimiser="adam")
