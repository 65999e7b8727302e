"""Training stages through Hugging Face's Trainer and TRL, with GPUs and LoRA (arXiv:2106.09685).

Batches, objectives, learning rates and checkpoint schedules are those of `training.train`, so a stage moves here by one name. Needs the
extra `train`. Trainer resumes a killed run from its own pickles, which are deleted when the run is done.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
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
from ontogeny.training.checkpoint_schedule import check_schedule
from ontogeny.training.checkpoints import (
    check_same_training_run,
    checkpoint_steps,
    hide_progress_bars,
    read_training_settings,
    save_language_model,
    write_checkpoint,
)
from ontogeny.training.loop import BatchFunction, TrainingConfig
from ontogeny.training.objectives.dpo import Preference
from ontogeny.training.objectives.grpo import GroupRelative
from ontogeny.training.objectives.objective import Objective, describe_objective
from ontogeny.training.train import describe_start, initial_language_model
from ontogeny.training.trl_trainers import TrlJob, trl_trainer_for

_TRL_PACKAGES = ("trl", "peft", "datasets", "accelerate")
_RESUME_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "training_args.bin")
_ADAPTER_FOLDER = "adapter"
"""Folder in a checkpoint that holds its LoRA adapter, beside the merged weights."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters of the linear maps; checkpoints have the merged weights."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    """Names of the linear maps; empty: all except the unembedding."""


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
    """Train through TRL and write `out/checkpoint-{step}` for every step of `save_at`; resumes from the last complete one.

    `language_model` and `answers_only` use SFTTrainer, `Preference` DPOTrainer, `GroupRelative` GRPOTrainer.

    Args:
        batches: The batch of a step (1, 2, …); all have the same number of rows.
        start: A configuration, or the folder of a checkpoint.
        cpu: Whether to train on the CPU even if there is a GPU.

    Returns:
        `out`.

    Raises:
        BadInput: the extra is not installed, TRL lacks the objective, batches differ in rows, or `out` has another run.
    """
    if missing := [name for name in _TRL_PACKAGES if find_spec(name) is None]:
        raise BadInput(f"training through TRL needs {', '.join(missing)}: run pip install 'ontogeny[train]'.")
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
        raise BadInput("`start` must be the folder of a checkpoint for this stage, got a configuration.")
    check_same_training_run(
        out, settings, {"versions": {name: version(name) for name in ("transformers", *_TRL_PACKAGES)}}
    )
    done = _resumable(out)
    if f"checkpoint-{config.steps}" == done:
        return out
    steps = [batches(step) for step in range(1, config.steps + 1)]
    with torch.random.fork_rng(devices=[]), hide_progress_bars():
        torch.manual_seed(seed)
        # When Trainer resumes, it loads weights by their names on disk. It skips weights that transformers renames on loading (GPT-NeoX's
        # unembedding), and an adapter beside merged weights, so these must be loaded here.
        network = initial_language_model(out / done if done and lora is None else start)
        # TRL loads the reference model of GRPO from this path, also on resuming.
        network.config._name_or_path = str(start)
        trained = (
            _with_adapter(network, lora, seed, out / done / _ADAPTER_FOLDER if done else None) if lora else network
        )
        reference = initial_language_model(start) if isinstance(objective, Preference) and lora is None else None
        callback = _CheckpointCallback(marks, [batch.tokens for batch in steps], start if lora else None)
        trainer = trainer_for(TrlJob(trained, reference, objective, steps, config, out, tokenizer, seed, cpu, callback))
        if done is None and 0 in marks:
            initial = initial_language_model(start) if lora else network
            write_checkpoint(out, partial(save_language_model, tokenizer, initial), step=0)
        with _quiet(resumed=done is not None):
            trainer.train(resume_from_checkpoint=str(out / done) if done else None)
    for step in checkpoint_steps(out):
        _delete_resume_files(out / f"checkpoint-{step}")
    return out


class _CheckpointCallback(TrainerCallback):
    """Saves at the steps of the schedule, counts tokens, and makes each checkpoint loadable without TRL."""

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
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(network, settings)


def _merge(folder: Path, start: PretrainedConfig | Path) -> None:
    """Write merged weights; the adapter is moved to a subfolder, since transformers would otherwise add it again on loading."""
    from peft import PeftModel

    inside = folder / _ADAPTER_FOLDER
    inside.mkdir(exist_ok=True)
    for path in folder.glob("adapter_*"):
        path.replace(inside / path.name)
    merged = PeftModel.from_pretrained(initial_language_model(start), inside).merge_and_unload()
    merged.save_pretrained(folder)


def _resumable(out: Path) -> str | None:
    """Name of the last complete checkpoint; incomplete ones, of a killed Trainer, are deleted."""
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
    """Silence Trainer's warning on resuming about renamed weights, which are loaded already."""
    before = logging.get_verbosity()
    if resumed:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
