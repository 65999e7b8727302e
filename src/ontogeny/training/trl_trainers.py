"""TRL trainers for the objectives of the plain loop, with batches as rows of token ids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from ontogeny.errors import BadInput
from ontogeny.training.batches import PreferenceBatch, PromptBatch, TokenBatch, TrainingBatch
from ontogeny.training.loop import TrainingConfig, learning_rate_at, make_optimizer
from ontogeny.training.objectives.dpo import Preference
from ontogeny.training.objectives.grpo import GroupRelative
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.objectives.objective import Objective, describe_objective


@dataclass(frozen=True)
class TrlJob:
    """Arguments of a TRL trainer."""

    network: nn.Module
    reference: nn.Module | None
    objective: Any
    steps: Sequence[Any]
    """The batches, in the order of the steps."""
    config: TrainingConfig
    out: Path
    tokenizer: PreTrainedTokenizerBase
    seed: int
    cpu: bool
    callback: TrainerCallback


def trl_trainer_for(objective: Objective) -> Callable[[TrlJob], Any]:
    """The function that builds the trainer of an objective.

    Raises:
        BadInput: TRL lacks the objective.
    """
    if objective in (language_model, answers_only):
        return sft_trainer
    if isinstance(objective, Preference) and objective.beta_rejected is None:
        return dpo_trainer
    if isinstance(objective, GroupRelative):
        return grpo_trainer
    raise BadInput(
        f"TRL has no {describe_objective(objective)['name']} like ours: use ontogeny.training.train.train for this stage."
    )


def sft_trainer(job: TrlJob) -> Any:
    from trl import SFTConfig, SFTTrainer

    rows = []
    for batch in job.steps:
        mask = batch.mask if job.objective is answers_only else batch.real
        for ids, real, labels in zip(
            batch.ids, _mask_or_ones(batch.real, batch), _mask_or_ones(mask, batch), strict=True
        ):
            length = int(real.sum())
            rows.append({"input_ids": ids[:length].tolist(), "labels": ids.where(labels, -100)[:length].tolist()})
    return _make_trainer(
        job, SFTTrainer, SFTConfig(**_arguments(job, _rows_per_batch(job.steps)), max_length=None), rows
    )


def dpo_trainer(job: TrlJob) -> Any:
    from trl import DPOConfig, DPOTrainer

    class Tokenised(DPOTrainer):
        """Takes rows of token ids; TRL would tokenize texts in its own way."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    rows = []
    for batch in job.steps:
        for row in range(len(batch.chosen.ids)):
            prompt, chosen = _split_prompt(batch.chosen, row)
            other_prompt, rejected = _split_prompt(batch.rejected, row)
            if prompt != other_prompt:
                raise BadInput(
                    "the chosen and the rejected answer of a pair must have the same prompt: check `batches`."
                )
            rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    settings = DPOConfig(**_arguments(job, _rows_per_batch(job.steps)), max_length=None, beta=job.objective.beta)
    # Without a reference, TRL turns the adapter off, or loads the path in the configuration, which may be outdated.
    return _make_trainer(job, Tokenised, settings, rows, ref_model=job.reference)


def grpo_trainer(job: TrlJob) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    objective: GroupRelative = job.objective

    def reward(completion_ids: list[list[int]], ids: list[list[int]], **_: Any) -> list[float]:
        answers = [a[:-1] if a and a[-1] == objective.stop else a for a in completion_ids]
        return [float(objective.reward(prompt, answer)) for prompt, answer in zip(ids, answers, strict=True)]

    rows = []
    for batch in job.steps:
        for ids, real in zip(batch.prompts.ids, _mask_or_ones(batch.prompts.real, batch.prompts), strict=True):
            prompt = ids[real].tolist()
            text = job.tokenizer.decode(prompt)
            if job.tokenizer(text)["input_ids"] != prompt:
                raise BadInput(
                    f"TRL takes prompts as text, but {text!r} is tokenized differently: use ontogeny.training.train.train."
                )
            rows.append({"prompt": text, "ids": prompt})
    settings = GRPOConfig(
        **_arguments(job, _rows_per_batch(job.steps) * objective.group),
        num_generations=objective.group,
        max_completion_length=objective.new_tokens,
        temperature=objective.temperature,
        beta=objective.beta,
        loss_type="grpo",
        shuffle_dataset=False,
        generation_kwargs={"eos_token_id": objective.stop},
    )
    return _make_trainer(job, GRPOTrainer, settings, rows, reward_funcs=reward)


def _arguments(job: TrlJob, rows: int) -> dict[str, Any]:
    return {
        "output_dir": str(job.out),
        "max_steps": job.config.steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": 1,
        "max_grad_norm": job.config.clip,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "logging_steps": 20,
        "report_to": [],
        "disable_tqdm": True,
        "seed": job.seed,
        "use_cpu": job.cpu,
        "bf16": False,
        "activation_checkpointing": False,
        "dataloader_pin_memory": not job.cpu and torch.cuda.is_available(),
    }


def _make_trainer(job: TrlJob, trainer_class: Any, settings: Any, rows: list[dict[str, Any]], **kwargs: Any) -> Any:
    from datasets import Dataset
    from transformers import PrinterCallback

    optimiser = make_optimizer(job.network, job.config)
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate_at(step + 1, job.config) / job.config.learning_rate
    )
    trainer = trainer_class(
        model=job.network,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=job.tokenizer,
        optimizers=(optimiser, rates),
        callbacks=[job.callback],
        **kwargs,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _rows_per_batch(steps: Sequence[TrainingBatch]) -> int:
    counts = {len(_ids(batch)) for batch in steps}
    if len(counts) > 1:
        raise BadInput(
            f"`batches` must have the same number of rows in every step for Trainer, got {sorted(counts)}: sample as many rows in each."
        )
    return counts.pop()


def _ids(batch: TrainingBatch) -> torch.Tensor:
    if isinstance(batch, PreferenceBatch):
        return batch.chosen.ids
    return batch.prompts.ids if isinstance(batch, PromptBatch) else batch.ids  # type: ignore[union-attr]


def _split_prompt(tokens: TokenBatch, row: int) -> tuple[list[int], list[int]]:
    if tokens.mask is None:
        raise BadInput("pairs need masks of their answers' tokens: make them with pad_batch.")
    real = _mask_or_ones(tokens.real, tokens)[row]
    answer = tokens.mask[row] & real
    return tokens.ids[row][real & ~answer].tolist(), tokens.ids[row][answer].tolist()


def _mask_or_ones(mask: torch.Tensor | None, batch: TokenBatch) -> torch.Tensor:
    return torch.ones_like(batch.ids, dtype=torch.bool) if mask is None else mask
