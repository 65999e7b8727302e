"""Trainer and TRL with the callback: weights, optimizer and random numbers are bit-identical over 50 steps, with dropout on."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

import ontogeny as on
from ontogeny.alerts.transports import wants_save
from ontogeny.errors import BadInput
from ontogeny.jobs.watch.undisturbed import random_state, undisturbed
from tests.helpers.tiny_models import byte_tokenizer
from tests.helpers.watched_trainings import LIGHT, concept, differences, start

needs_accelerate = pytest.mark.skipif(find_spec("accelerate") is None, reason="needs accelerate (extra train)")
needs_trl = pytest.mark.skipif(
    find_spec("trl") is None or find_spec("peft") is None, reason="needs trl and peft (extra train)"
)
STEPS = 50
# TRL and PEFT warn about names of transformers that are going to change.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def arguments(out: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "save_strategy": "steps",
        "save_steps": 20,
        "save_total_limit": 2,
        "logging_steps": 25,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
        "bf16": False,
        "activation_checkpointing": False,
        **more,
    }


def plain(out: Path, callbacks: list[Any]) -> Any:
    from transformers import Trainer, TrainingArguments

    network = start()
    rows = [{"input_ids": (ids := torch.randint(3, 200, (16,))), "labels": ids} for _ in range(64)]
    return Trainer(
        network,
        TrainingArguments(**arguments(out)),
        train_dataset=rows,
        processing_class=byte_tokenizer(),
        callbacks=callbacks,
    )


def lora(network: Any, base: Path) -> Any:
    from peft import LoraConfig, get_peft_model

    network.save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    network.name_or_path = network.config._name_or_path = str(base)
    # B away from zero, so that the adapter counts from the first step.
    settings = {"r": 4, "lora_dropout": 0.1, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    return get_peft_model(network, LoraConfig(**settings, task_type="CAUSAL_LM", init_lora_weights=False))


def sft(out: Path, callbacks: list[Any]) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    network = lora(start(), out.parent / "base")
    rows = Dataset.from_list([{"text": f"they say {i} and {i + 1}"} for i in range(64)])
    return SFTTrainer(
        network,
        SFTConfig(**arguments(out), max_length=32),
        train_dataset=rows,
        processing_class=byte_tokenizer(),
        callbacks=callbacks,
    )


def dpo(out: Path, callbacks: list[Any]) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    network, reference = start(), start()
    rows = [{"prompt": f"so {i} ", "chosen": "they say", "rejected": "it was"} for i in range(64)]
    return DPOTrainer(
        network,
        reference,
        DPOConfig(**arguments(out), max_length=32),
        train_dataset=Dataset.from_list(rows),
        processing_class=byte_tokenizer(),
        callbacks=callbacks,
    )


def state(trainer: Any) -> dict[str, Any]:
    trainer.train()
    network = trainer.model
    return {
        "weights": dict(network.state_dict()),
        "optimizer": trainer.optimizer.state_dict()["state"],
        "random": random_state(),
        "modes": [module.training for module in network.modules()],
        "loss": [entry.get("loss") for entry in trainer.state.log_history],
    }


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(plain, marks=needs_accelerate, id="Trainer"),
        pytest.param(sft, marks=needs_trl, id="SFT with LoRA"),
        pytest.param(dpo, marks=needs_trl, id="DPO"),
    ],
)
def test_watched_training_is_bit_identical(make: Any, tmp_path: Path) -> None:
    coin = concept(tmp_path)
    alone = state(make(tmp_path / "alone", []))
    callback = on.TraceCallback([coin], tmp_path / "run", budget=0.9, settings=LIGHT, on_alert=["log", "save"])
    watched = state(make(tmp_path / "out", [callback]))
    assert differences(alone, watched) == []
    measured = callback.watcher.pace.measured
    assert measured[0] == 0
    assert measured[-1] == STEPS
    assert callback.watcher.failures == 0, callback.watcher.last_error
    # The last checkpoint was measured as it was saved: a trace of the folder has only the other ones to do.
    run = on.trace(tmp_path / "out", [coin], tmp_path / "run", LIGHT)
    assert f"checkpoint-{STEPS}" not in [line.get("checkpoint") for line in run.ledger()[len(measured) :]]
    steps = set(run.query("select distinct step from records where metric = 'auroc' and step is not null")["step"])
    assert {*measured, 40, 50} <= steps


@needs_accelerate
def test_trainer_without_a_tokenizer_or_with_sharded_weights_is_refused(tmp_path: Path) -> None:
    trainer = plain(tmp_path / "a", [on.TraceCallback([concept(tmp_path)], tmp_path / "run", settings=LIGHT)])
    trainer.processing_class = trainer.callback_handler.processing_class = None
    with pytest.raises(BadInput, match="`tokenizer` must be that of the model"):
        trainer.train()
    trainer = plain(tmp_path / "b", [on.TraceCallback([concept(tmp_path)], tmp_path / "run", settings=LIGHT)])
    trainer.args.fsdp = ["full_shard"]
    with pytest.raises(BadInput, match=r"sharded by FSDP: take this callback out.*ontogeny watch"):
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)


def test_callback_checks_its_arguments_before_a_training(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`budget` must be a share"):
        on.TraceCallback([concept(tmp_path)], tmp_path / "run", budget=0)
    with pytest.raises(BadInput, match="after the training has begun"):
        _ = on.TraceCallback([concept(tmp_path)], tmp_path / "run").run


def test_an_alert_asks_the_trainer_to_save_where_that_is_wanted(tmp_path: Path) -> None:
    class Watched:
        """A watcher that raises an alert at step 2."""

        pace = SimpleNamespace(measured=[])
        series: tuple[()] = ()
        alerts: tuple[()] = ()
        failures = 0

        def __init__(self, on_alert: list[str]) -> None:
            self.save_on_alert = wants_save(on_alert)

        def step(self, step: int, **_: Any) -> list[str]:
            return ["alert"] if step == 2 else []

    def saves(on_alert: list[str]) -> list[bool]:
        callback = on.TraceCallback([concept(tmp_path)], tmp_path / "run", on_alert=on_alert)
        callback.watcher = Watched(on_alert)  # type: ignore[assignment]
        asked = []
        for step in (1, 2, 3):
            control = TrainerControl()
            callback.on_step_end(SimpleNamespace(save_strategy="no"), TrainerState(global_step=step), control)
            asked.append(control.should_save)
        return asked

    assert saves(["log", "save"]) == [False, True, False]
    assert saves(["log"]) == [False, False, False]


def test_generators_of_gpus_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    state = [torch.tensor([1], dtype=torch.uint8), torch.tensor([2], dtype=torch.uint8)]
    drawn = [torch.tensor([9], dtype=torch.uint8)] * 2
    now = [state]
    for name, value in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "get_rng_state_all": lambda: now[0],
        "set_rng_state_all": lambda states: now.__setitem__(0, states),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    with undisturbed(start()):
        now[0] = drawn
    assert now[0] is state


@needs_trl
def test_rollouts_of_grpo_are_read_and_change_nothing(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(set(completion))) for completion in completions]

    def grpo(out: Path, callback: on.TraceCallback | None) -> Any:
        network = start()
        settings = arguments(out, max_steps=6, save_steps=100, per_device_train_batch_size=4)
        return GRPOTrainer(
            network,
            reward if callback is None else callback.observe_rollouts(reward),
            args=GRPOConfig(**settings, num_generations=2, max_completion_length=12),
            train_dataset=Dataset.from_list([{"prompt": f"so {i} "} for i in range(32)]),
            processing_class=byte_tokenizer(),
            callbacks=[callback] if callback else [],
        )

    alone = state(grpo(tmp_path / "alone", None))
    callback = on.TraceCallback([concept(tmp_path)], tmp_path / "run", budget=0.9, settings=LIGHT, on_alert="log")
    assert differences(alone, state(grpo(tmp_path / "out", callback))) == []
    rows = callback.run.records(metric="rollout_share")
    assert 6 in set(rows["step"])  # the last step is measured, whatever the time allows before
    assert (rows["n"] > 0).all()
    assert rows["value"].between(0, 1).all()
