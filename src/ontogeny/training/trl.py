"""The stages of `training.train` through Hugging Face's Trainer and TRL: GPUs, LoRA (arXiv:2106.09685), whatever they can do.

The same batches, objectives, learning rates and schedule of checkpoints, so that a stage moves from the plain loop to here by one
name. Needs the extra `train`. Trainer resumes a killed run with pickles of its own making; they go when the run is done.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import logging

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import weight_files
from ontogeny.storage.files import atomic_folder
from ontogeny.training.checkpoint_schedule import check_schedule
from ontogeny.training.checkpoints import (
    check_same_training_run,
    checkpoint_steps,
    hide_progress_bars,
    read_training_settings,
)
from ontogeny.training.loop import BatchFunction, TrainingConfig
from ontogeny.training.objectives import GroupRelative, Objective, Preference, describe_objective
from ontogeny.training.train import describe_start, initial_language_model
from ontogeny.training.trl_trainers import TrlJob, trl_trainer_for

TRL_PACKAGES = ("trl", "peft", "datasets", "accelerate")
_RESUME_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "training_args.bin")
_ADAPTER_FOLDER = "adapter"
"""Folder in a checkpoint that holds its LoRA adapter, beside the merged weights."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank changes of the linear maps; checkpoints hold the model with the change merged in."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    """Names of the linear maps; none: all but the unembedding."""


def train_with_trl(
    batches: BatchFunction,
    objective: Objective,
    config: TrainingConfig,
    out: Path,
    *,
    start: PretrainedConfig | Path,
    tokenizer: PreTrainedTokenizerBase,
    save_at: Sequence[int],
    seed: int = 0,
    lora: LoraOptions | None = None,
    cpu: bool = False,
) -> Path:
    """Train through TRL and leave `out/checkpoint-{step}` for every step of `save_at`; returns `out`.

    `language_model` and `answers_only` go to SFTTrainer, `Preference` to DPOTrainer, `GroupRelative` to GRPOTrainer. All steps need
    batches of equally many rows. Run again, it goes on from the last complete checkpoint, or does nothing if all is there.

    Raises:
        BadInput: the extra is not installed, an objective that TRL does not have, uneven batches, or another run in `out`.
    """
    if missing := [name for name in TRL_PACKAGES if find_spec(name) is None]:
        raise BadInput(f"training through TRL needs {', '.join(missing)}. Run pip install 'ontogeny[train]'.")
    marks = check_schedule(save_at, config.steps)
    start = Path(start) if isinstance(start, str) else start
    settings = {
        "through": "trl",
        "training": asdict(config),
        "objective": describe_objective(objective),
        "model": describe_start(start),
        "lora": asdict(lora) if lora else None,
        "save_at": list(marks),
        "seed": seed,
    }
    trainer_for = trl_trainer_for(objective)
    if isinstance(start, PretrainedConfig) and (lora or isinstance(objective, Preference | GroupRelative)):
        raise BadInput(
            "this stage starts from a checkpoint, and was given a configuration. Give a checkpoint's folder."
        )
    check_same_training_run(
        out, settings, {"versions": {name: version(name) for name in ("transformers", *TRL_PACKAGES)}}
    )
    done = _resumable(out)
    if f"checkpoint-{config.steps}" == done:
        return out
    steps = [batches(step) for step in range(1, config.steps + 1)]
    with torch.random.fork_rng(devices=[]), hide_progress_bars():
        torch.manual_seed(seed)
        # Trainer resumes by the names on disk. It leaves as they are the weights that transformers renames when it loads
        # (GPT-NeoX's unembedding), and an adapter beside merged weights: all of them must be there already.
        network = initial_language_model(out / done if done and lora is None else start)
        # From there TRL takes the reference of GRPO, on resuming too.
        network.config._name_or_path = str(start)
        trained = (
            _with_adapter(network, lora, seed, out / done / _ADAPTER_FOLDER if done else None) if lora else network
        )
        reference = initial_language_model(start) if isinstance(objective, Preference) and lora is None else None
        keeper = _Keeper(marks, [batch.tokens for batch in steps], start if lora else None)
        job = TrlJob(trained, reference, objective, steps, config, out, tokenizer, seed, cpu, keeper)
        trainer = trainer_for(job)
        if done is None and 0 in marks:
            _write_initial_checkpoint(
                initial_language_model(start) if lora else network, tokenizer, out / "checkpoint-0"
            )
        with _quiet(resumed=done is not None):
            trainer.train(resume_from_checkpoint=str(out / done) if done else None)
    for step in checkpoint_steps(out):
        _delete_resume_files(out / f"checkpoint-{step}")
    return out


class _Keeper(TrainerCallback):
    """Saves at the marks, tells the tokens seen, and makes each checkpoint one that others can open."""

    def __init__(self, marks: Sequence[int], tokens: Sequence[int], merge_into: PretrainedConfig | Path | None) -> None:
        self.marks, self.tokens, self.merge_into = set(marks), tokens, merge_into

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.num_input_tokens_seen = sum(self.tokens[: state.global_step])
        control.should_save = state.global_step in self.marks

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        out = Path(args.output_dir)
        if self.merge_into is not None:
            _merge(out / f"checkpoint-{state.global_step}", self.merge_into)
        for step in checkpoint_steps(out):
            if step < state.global_step:
                _delete_resume_files(out / f"checkpoint-{step}")


def _with_adapter(network: nn.Module, lora: LoraOptions, seed: int, saved: Path | None) -> nn.Module:
    from peft import LoraConfig, PeftModel, get_peft_model

    if saved is not None and saved.is_dir():
        return PeftModel.from_pretrained(network, saved, is_trainable=True)
    torch.manual_seed(seed)
    how = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(network, how)


def _merge(folder: Path, start: PretrainedConfig | Path) -> None:
    """The start plus its low-rank change; the adapter moves aside, or transformers would add it a second time on loading."""
    from peft import PeftModel

    inside = folder / _ADAPTER_FOLDER
    inside.mkdir(exist_ok=True)
    for path in folder.glob("adapter_*"):
        path.replace(inside / path.name)
    merged = PeftModel.from_pretrained(initial_language_model(start), inside).merge_and_unload()
    merged.save_pretrained(folder)


def _write_initial_checkpoint(network: nn.Module, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    def write(folder: Path) -> None:
        network.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 0}) + "\n", encoding="utf-8")

    atomic_folder(path, write)


def _resumable(out: Path) -> str | None:
    """The last checkpoint that is whole; one that Trainer was writing when it was killed goes."""
    last = read_training_settings(out)["training"]["steps"]
    for step in reversed(checkpoint_steps(out)):
        folder = out / f"checkpoint-{step}"
        try:
            weight_files.check_model_folder(folder)
            weight_files.read_json(folder / "trainer_state.json")
            if step == last or (folder / "optimizer.pt").is_file():
                return folder.name
        except CheckpointError:
            pass
        if step:
            shutil.rmtree(folder)
    return None


def _delete_resume_files(checkpoint: Path) -> None:
    for name in _RESUME_FILES:
        (checkpoint / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _quiet(*, resumed: bool) -> Iterator[None]:
    """On resuming, Trainer warns of the renamed weights, which are in place."""
    before = logging.get_verbosity()
    if resumed:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
