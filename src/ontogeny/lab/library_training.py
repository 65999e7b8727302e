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

from ontogeny.errors import BadInput, CheckpointFault
from ontogeny.lab.batches import Batch, Pairs, Prompts, Tokens
from ontogeny.lab.keeping import no_bars, read_settings, same_run, steps_in, whole
from ontogeny.lab.loop import Batches, TrainingConfig, learning_rate, make_optimiser
from ontogeny.lab.objectives import GroupRelative, Objective, Preference, answers_only, describe, language_model
from ontogeny.lab.schedules import fitting
from ontogeny.lab.training import described_start, language_model_from
from ontogeny.lineage import files

PACKAGES = ("trl", "peft", "datasets", "accelerate")
RESUMING = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "training_args.bin")
ADAPTER = "adapter"
"""Folder in a checkpoint that holds its LoRA adapter, beside the merged weights."""


@dataclass(frozen=True)
class Lora:
    """Low-rank changes of the linear maps; checkpoints hold the model with the change merged in."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    """Names of the linear maps; none: all but the unembedding."""


def train_with_library(
    batches: Batches,
    objective: Objective,
    config: TrainingConfig,
    out: Path,
    *,
    start: PretrainedConfig | Path,
    tokenizer: PreTrainedTokenizerBase,
    save_at: Sequence[int],
    seed: int = 0,
    lora: Lora | None = None,
    cpu: bool = False,
) -> Path:
    """Train through TRL and leave `out/checkpoint-{step}` for every step of `save_at`; returns `out`.

    `language_model` and `answers_only` go to SFTTrainer, `Preference` to DPOTrainer, `GroupRelative` to GRPOTrainer. All steps need
    batches of equally many rows. Run again, it goes on from the last complete checkpoint, or does nothing if all is there.

    Raises:
        BadInput: the extra is not installed, an objective that TRL does not have, uneven batches, or another run in `out`.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise BadInput(f"training through TRL needs {', '.join(missing)}. Run pip install 'ontogeny[train]'.")
    marks = fitting(save_at, config.steps)
    settings = {
        "through": "trl",
        "training": asdict(config),
        "objective": describe(objective),
        "model": described_start(start),
        "lora": asdict(lora) if lora else None,
        "save_at": list(marks),
        "seed": seed,
    }
    kind = _kind(objective)
    if kind is _grpo and not isinstance(start, Path):
        raise BadInput("GRPO through TRL starts from a checkpoint, and was given a configuration. Give a folder.")
    steps = [batches(step) for step in range(1, config.steps + 1)]
    same_run(out, settings, {"versions": {name: version(name) for name in ("transformers", *PACKAGES)}})
    done = _resumable(out)
    if f"checkpoint-{config.steps}" == done:
        return out
    with torch.random.fork_rng(devices=[]), no_bars():
        torch.manual_seed(seed)
        # Trainer resumes by the names on disk. It leaves as they are the weights that transformers renames when it loads
        # (GPT-NeoX's unembedding), and an adapter beside merged weights: all of them must be there already.
        network = language_model_from(out / done if done and lora is None else start)
        # From there TRL takes the reference of GRPO, on resuming too.
        network.config._name_or_path = str(start)
        if done is None and 0 in marks:
            _first(network, tokenizer, out / "checkpoint-0")
        trained = _with_adapter(network, lora, seed, out / done / ADAPTER if done else None) if lora else network
        reference = language_model_from(start) if isinstance(objective, Preference) and lora is None else None
        keeper = _Keeper(marks, [batch.tokens for batch in steps], start if lora else None)
        trainer = kind(trained, reference, objective, steps, config, out, tokenizer, seed, cpu, keeper)
        with _quiet(resumed=done is not None):
            trainer.train(resume_from_checkpoint=str(out / done) if done else None)
    for step in steps_in(out):
        _forget(out / f"checkpoint-{step}")
    return out


def _kind(objective: Objective) -> Any:
    if objective in (language_model, answers_only):
        return _sft
    if isinstance(objective, Preference) and objective.beta_rejected is None:
        return _dpo
    if isinstance(objective, GroupRelative):
        return _grpo
    raise BadInput(
        f"TRL has no {describe(objective)['name']} like ours. Use ontogeny.lab.training.train for this stage."
    )


def _sft(
    network: nn.Module, _: None, objective: Objective, steps: Sequence[Tokens], config: TrainingConfig, out: Path,
    tokenizer: PreTrainedTokenizerBase, seed: int, cpu: bool, keeper: TrainerCallback,
) -> Any:  # fmt: skip
    from trl import SFTConfig, SFTTrainer

    rows = []
    for batch in steps:
        counted = batch.mask if objective is answers_only else batch.real
        for ids, real, labels in zip(
            batch.ids, _all_if_none(batch.real, batch), _all_if_none(counted, batch), strict=True
        ):
            kept = int(real.sum())
            rows.append({"input_ids": ids[:kept].tolist(), "labels": ids.where(labels, -100)[:kept].tolist()})
    settings = SFTConfig(**_arguments(config, out, seed, cpu, _rows(steps)), max_length=None)
    return _made(SFTTrainer, network, settings, rows, tokenizer, keeper, config)


def _dpo(
    network: nn.Module, reference: nn.Module | None, objective: Preference, steps: Sequence[Pairs], config: TrainingConfig, out: Path,
    tokenizer: PreTrainedTokenizerBase, seed: int, cpu: bool, keeper: TrainerCallback,
) -> Any:  # fmt: skip
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):
        """Takes rows of token ids; TRL would take texts and tokenise them in its own way."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    rows = []
    for batch in steps:
        for row in range(len(batch.chosen.ids)):
            prompt, chosen = _parted(batch.chosen, row)
            same, rejected = _parted(batch.rejected, row)
            if prompt != same:
                raise BadInput(
                    "the chosen and the rejected answer of a pair follow different prompts. Check the batches."
                )
            rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    settings = DPOConfig(**_arguments(config, out, seed, cpu, _rows(steps)), max_length=None, beta=objective.beta)
    # Without a reference, TRL switches the adapter off, or loads what the configuration names, which may have moved.
    return _made(Tokenised, network, settings, rows, tokenizer, keeper, config, ref_model=reference)


def _grpo(
    network: nn.Module, _: None, objective: GroupRelative, steps: Sequence[Prompts], config: TrainingConfig, out: Path,
    tokenizer: PreTrainedTokenizerBase, seed: int, cpu: bool, keeper: TrainerCallback,
) -> Any:  # fmt: skip
    from trl import GRPOConfig, GRPOTrainer

    def reward(completion_ids: list[list[int]], ids: list[list[int]], **_: Any) -> list[float]:
        answers = [a[:-1] if a and a[-1] == objective.stop else a for a in completion_ids]
        return [float(objective.reward(prompt, answer)) for prompt, answer in zip(ids, answers, strict=True)]

    rows = []
    for batch in steps:
        for ids, real in zip(batch.prompts.ids, _all_if_none(batch.prompts.real, batch.prompts), strict=True):
            kept = ids[real].tolist()
            text = tokenizer.decode(kept)
            if tokenizer(text, add_special_tokens=False)["input_ids"] != kept:
                raise BadInput(
                    f"the prompt {text!r} reads back as other tokens, and TRL takes prompts as text. Use train."
                )
            rows.append({"prompt": text, "ids": kept})
    settings = GRPOConfig(
        **_arguments(config, out, seed, cpu, _rows(steps) * objective.group),
        num_generations=objective.group,
        max_completion_length=objective.new_tokens,
        temperature=objective.temperature,
        beta=objective.beta,
        loss_type="grpo",
        shuffle_dataset=False,
        generation_kwargs={"eos_token_id": objective.stop},
    )
    return _made(GRPOTrainer, network, settings, rows, tokenizer, keeper, config, reward_funcs=reward)


def _arguments(config: TrainingConfig, out: Path, seed: int, cpu: bool, rows: int) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "max_steps": config.steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": 1,
        "max_grad_norm": config.clip,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_steps": 20,
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed,
        "use_cpu": cpu,
        "bf16": False,
        "activation_checkpointing": False,
        "dataloader_pin_memory": not cpu and torch.cuda.is_available(),
    }


def _made(
    trainer: Any, network: nn.Module, settings: Any, rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase,
    keeper: TrainerCallback, config: TrainingConfig, **more: Any,
) -> Any:  # fmt: skip
    from datasets import Dataset
    from transformers import PrinterCallback

    optimiser = make_optimiser(network, config)
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate(step + 1, config) / config.learning_rate
    )
    made = trainer(
        model=network,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        optimizers=(optimiser, rates),
        callbacks=[keeper],
        **more,
    )
    made.remove_callback(PrinterCallback)
    return made


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
        for step in steps_in(out):
            if step < state.global_step:
                _forget(out / f"checkpoint-{step}")


def _with_adapter(network: nn.Module, lora: Lora, seed: int, saved: Path | None) -> nn.Module:
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

    inside = folder / ADAPTER
    inside.mkdir(exist_ok=True)
    for path in folder.glob("adapter_*"):
        path.replace(inside / path.name)
    merged = PeftModel.from_pretrained(language_model_from(start), inside).merge_and_unload()
    merged.save_pretrained(folder)


def _first(network: nn.Module, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    def write(folder: Path) -> None:
        network.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 0}) + "\n", encoding="utf-8")

    whole(path, write)


def _resumable(out: Path) -> str | None:
    """The last checkpoint that is whole; one that Trainer was writing when it was killed goes."""
    last = read_settings(out)["training"]["steps"]
    for step in reversed(steps_in(out)):
        folder = out / f"checkpoint-{step}"
        try:
            files.check(folder)
            files.read_json(folder / "trainer_state.json")
            if step == last or (folder / "optimizer.pt").is_file():
                return folder.name
        except CheckpointFault:
            pass
        if step:
            shutil.rmtree(folder)
    return None


def _forget(checkpoint: Path) -> None:
    for name in RESUMING:
        (checkpoint / name).unlink(missing_ok=True)


def _rows(steps: Sequence[Batch]) -> int:
    found = {len(_ids(batch)) for batch in steps}
    if len(found) > 1:
        raise BadInput(
            f"batches have {sorted(found)} rows; Trainer takes the same number in every step. Make them equal."
        )
    return found.pop()


def _ids(batch: Batch) -> torch.Tensor:
    if isinstance(batch, Pairs):
        return batch.chosen.ids
    return batch.prompts.ids if isinstance(batch, Prompts) else batch.ids  # type: ignore[union-attr]


def _parted(tokens: Tokens, row: int) -> tuple[list[int], list[int]]:
    if tokens.mask is None:
        raise BadInput("pairs need masks of their answers' tokens, and have none. Make them with pad().")
    real = _all_if_none(tokens.real, tokens)[row]
    answer = tokens.mask[row] & real
    return tokens.ids[row][real & ~answer].tolist(), tokens.ids[row][answer].tolist()


def _all_if_none(mask: torch.Tensor | None, batch: Tokens) -> torch.Tensor:
    return torch.ones_like(batch.ids, dtype=torch.bool) if mask is None else mask


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
