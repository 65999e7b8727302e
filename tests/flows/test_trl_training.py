"""Trainer and TRL compared with the plain loop: equal steps up to rounding, merged LoRA, checkpoints that open as a lineage."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ontogeny.errors import BadInput
from ontogeny.lineage import Lineage
from ontogeny.training import trl
from ontogeny.training.batches import PreferenceBatch, PromptBatch, TokenBatch, pad_batch
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.model_parts import model_parts
from ontogeny.training.objectives.dpo import Preference, with_reference_log_probs
from ontogeny.training.objectives.grpo import GroupRelative
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.objectives.unlearning import Unlearn
from ontogeny.training.rollouts import sample_rollouts
from ontogeny.training.train import train
from ontogeny.training.trl import LoraOptions, train_with_trl
from tests.helpers.tiny_models import VOCAB, byte_tokenizer, save_tiny

MISSING = [name for name in trl._TRL_PACKAGES if importlib.util.find_spec(name) is None]
# TRL 1 asks transformers 5 by a name that is going; what else they warn of is an error.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
installed = pytest.mark.skipif(bool(MISSING), reason=f"needs the extra 'train' ({', '.join(MISSING)} not installed)")

TOKENIZER = byte_tokenizer()
CONFIG = TrainingConfig(steps=4, warmup=2, learning_rate=3e-3)


def draw(step: int, kind: int, *shape: int) -> list[list[int]]:
    return torch.randint(5, VOCAB, shape, generator=torch.Generator().manual_seed(10 * step + kind)).tolist()


def texts(step: int) -> TokenBatch:
    return pad_batch([row[: 9 - i] for i, row in enumerate(draw(step, 0, 3, 9))])


def questions(step: int) -> TokenBatch:
    return pad_batch([row[: 8 - i] for i, row in enumerate(draw(step, 1, 3, 8))], [2, 3, 4])


def choices(step: int) -> PreferenceBatch:
    prompts, good, bad = (draw(step, kind, 3, 4) for kind in (1, 2, 3))
    chosen = pad_batch([p[: 1 + i] + g for i, (p, g) in enumerate(zip(prompts, good, strict=True))], [1, 2, 3])
    rejected = pad_batch(
        [p[: 1 + i] + b[: 3 - i] for i, (p, b) in enumerate(zip(prompts, bad, strict=True))], [1, 2, 3]
    )
    return PreferenceBatch(chosen, rejected)


def prompts(step: int) -> PromptBatch:
    return PromptBatch(pad_batch(TOKENIZER(["ab", "cde"])["input_ids"]))


def says_low(prompt, answer) -> float:
    return float(sum(token < 60 for token in answer))


STAGES = {
    "text": (texts, language_model),
    "sft": (questions, answers_only),
    "dpo": (choices, Preference(0.5)),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return save_tiny("gpt_neox", tmp_path_factory.mktemp("start"))


def library(name: str, start: Path, out: Path, *, batches=None, config=CONFIG, **more) -> Path:
    made, objective = STAGES[name]
    return train_with_trl(
        batches or made, objective, config, out, start=start, tokenizer=TOKENIZER, save_at=(0, 2, 4), cpu=True, **more
    )


@torch.no_grad()
def network(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return network(folder).state_dict()


@installed
@pytest.mark.parametrize("name", STAGES)
def test_trainer_steps_equal_the_plain_loop(start, tmp_path, name):
    theirs = library(name, start, tmp_path / "theirs")
    batches, objective = STAGES[name]
    ours = train(batches, objective, CONFIG, tmp_path / "ours", start=start, tokenizer=TOKENIZER, save_at=(0, 2, 4))
    moved = max(
        float((a - b).abs().max())
        for a, b in zip(weights(start).values(), weights(ours / "checkpoint-4").values(), strict=True)
    )
    for step in (0, 2, 4):
        one, other = weights(theirs / f"checkpoint-{step}"), weights(ours / f"checkpoint-{step}")
        assert max(float((one[key] - other[key]).abs().max()) for key in one) < 0.02 * moved
    found = [(c.step, c.tokens) for c in Lineage.open(theirs).checkpoints]
    assert found == [(c.step, c.tokens) for c in Lineage.open(ours).checkpoints]
    assert not [path for path in theirs.rglob("*") if path.suffix in (".pt", ".pth", ".bin")]
    before = {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}
    library(name, start, theirs)
    assert before == {path: path.stat().st_mtime_ns for path in theirs.rglob("*")}


@installed
def test_preference_loss_equals_trl(start, tmp_path):
    """The first loss that DPOTrainer logs equals ours, with another model as the reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    other = save_tiny("gpt_neox", tmp_path / "other", seed=1)
    rows = [
        {"prompt": "one", "chosen": " two", "rejected": " three!"},
        {"prompt": "a", "chosen": "bc", "rejected": "d"},
    ]
    settings = DPOConfig(
        str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, beta=0.3, use_cpu=True, report_to=[],
        logging_steps=1, disable_tqdm=True, save_strategy="no", bf16=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        network(start), network(other), settings, train_dataset=Dataset.from_list(rows), processing_class=TOKENIZER
    )
    trainer.train()
    end = TOKENIZER.eos_token_id

    def side(key: str) -> TokenBatch:
        heads = [TOKENIZER(row["prompt"])["input_ids"] for row in rows]
        ids = [TOKENIZER(row["prompt"] + row[key])["input_ids"] + [end] for row in rows]
        return pad_batch(ids, [len(head) for head in heads])

    pairs = with_reference_log_probs(PreferenceBatch(side("chosen"), side("rejected")), network(other))
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert Preference(0.3)(network(start), pairs).item() == pytest.approx(logged, rel=1e-3)


@installed
@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_lora_is_merged_into_checkpoints(start, tmp_path, name):
    run = library(
        name,
        start,
        tmp_path / "run",
        lora=LoraOptions(rank=2),
        config=TrainingConfig(**{**vars(CONFIG), "learning_rate": 0.03}),
    )
    first, last = weights(run / "checkpoint-0"), weights(run / "checkpoint-4")
    parts = model_parts(network(start))
    changed = {part for part, names in parts.items() if any(not torch.equal(first[n], last[n]) for n in names)}
    assert changed == {f"blocks.{layer}.{part}" for layer in (1, 2) for part in ("attn", "mlp")}
    for key, value in last.items():
        if not torch.equal(value, first[key]):
            assert torch.linalg.matrix_rank(value - first[key], tol=1e-5) <= 2
    assert [c.step for c in Lineage.open(run).checkpoints] == [0, 2, 4]
    assert all(torch.equal(value, first[key]) for key, value in weights(start).items())


@installed
@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2)])
def test_resumed_run_equals_one_run(start, tmp_path, monkeypatch, lora):
    class Killed(Exception):
        pass

    whole = library("sft", start, tmp_path / "whole", lora=lora)
    with monkeypatch.context() as patched:
        save = trl._CheckpointCallback.on_step_end

        def until(self, args, state, control, **more):
            if state.global_step == 4:
                raise Killed
            return save(self, args, state, control, **more)

        patched.setattr(trl._CheckpointCallback, "on_step_end", until)
        with pytest.raises(Killed):
            library("sft", start, tmp_path / "run", lora=lora)
    assert [c.step for c in Lineage.open(tmp_path / "run").checkpoints] == [0, 2]
    half = tmp_path / "run" / "checkpoint-3"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"cut")
    again = library("sft", start, tmp_path / "run", lora=lora)
    one, other = weights(whole / "checkpoint-4"), weights(again / "checkpoint-4")
    assert all(torch.allclose(value, other[key], atol=1e-6) for key, value in one.items())
    assert [c.step for c in Lineage.open(again).checkpoints] == [0, 2, 4]


@installed
def test_grpo_increases_the_reward(start, tmp_path):
    objective = GroupRelative(says_low, group=8, new_tokens=4, stop=1, beta=0.01)
    run = train_with_trl(
        prompts, objective, TrainingConfig(steps=40, warmup=1, learning_rate=1e-2), tmp_path / "run", start=start,
        tokenizer=TOKENIZER, save_at=(0, 40), cpu=True,
    )  # fmt: skip

    def rewarded(folder: Path) -> float:
        torch.manual_seed(0)
        return (
            objective.rewards(sample_rollouts(network(folder), prompts(1).prompts, copies=64, new_tokens=4, stop=1))
            .mean()
            .item()
        )

    assert rewarded(run / "checkpoint-40") > rewarded(run / "checkpoint-0") + 1.5


@installed
def test_rejects_unsupported_requests(start, tmp_path):
    with pytest.raises(BadInput, match="no Unlearn"):
        train_with_trl(texts, Unlearn(), CONFIG, tmp_path / "a", start=start, tokenizer=TOKENIZER, save_at=(4,))
    with pytest.raises(BadInput, match="same number"):
        library("sft", start, tmp_path / "b", batches=lambda step: pad_batch([[5, 6, 7]] * step, [1] * step))
    assert not list((tmp_path / "b").glob("checkpoint-*"))
    with pytest.raises(BadInput, match="must be the folder of a checkpoint"):
        train_with_trl(
            prompts, GroupRelative(says_low), CONFIG, tmp_path / "b", start=network(start).config, tokenizer=TOKENIZER,
            save_at=(4,),
        )  # fmt: skip
    library("sft", start, tmp_path / "c")
    with pytest.raises(BadInput, match="lora"):
        library("sft", start, tmp_path / "c", lora=LoraOptions())


def test_missing_extra_is_an_error(start, tmp_path, monkeypatch):
    monkeypatch.setattr(trl, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'ontogeny\[train\]'"):
        library("sft", start, tmp_path / "run")
    assert not (tmp_path / "run").exists()
