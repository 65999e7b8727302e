"""Pretrain a small language model and keep its checkpoints: a plain loop (AdamW, arXiv:1711.05101; warm-up, then a cosine).

A checkpoint is a Hugging Face folder `checkpoint-{step}`, written under a temporary name and renamed. Beside it lies what a
killed run needs to end with the very weights of an unbroken one: the optimiser's state and the random numbers', no pickle.
"""

import contextlib
import copy
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ontogeny.errors import BadInput
from ontogeny.store import digest, disk_errors, write_json

Batches = Callable[[int], Int[Tensor, "row token"]]
"""The token ids of a step (1, 2, …). A function of the step, not a stream: a resumed run has nothing to wind forward."""


@dataclass(frozen=True)
class TrainingConfig:
    steps: int
    learning_rate: float = 3e-3
    warmup: int = 50
    """Steps in which the learning rate rises from 0."""
    floor: float = 0.05
    """Share of the learning rate that is left at the last step."""
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class TrainingProgress:
    step: int
    steps: int
    loss: float
    """Nats per token, mean since the last call."""
    tokens_per_second: float
    seconds_left: float


Watch = Callable[[TrainingProgress], None]


def log_steps(last: int, count: int, *, first: int = 1) -> tuple[int, ...]:
    """Step 0 and `count` - 1 steps up to `last`, evenly spaced in the logarithm; fewer where they would coincide."""
    if not (1 <= first <= last and count >= 2):
        raise BadInput(f"no schedule of {count} steps from {first} to {last}. Take 1 <= first <= last and count >= 2.")
    ratio = math.log(last / first)
    marks = [round(first * math.exp(ratio * i / max(count - 2, 1))) for i in range(count - 1)]
    return tuple(sorted({0, *marks, last}))


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to `floor`; the first step is 1."""
    down = (step - config.warmup) / max(config.steps - config.warmup, 1)
    cosine = config.floor + (1 - config.floor) * (1 + math.cos(math.pi * max(down, 0.0))) / 2
    return config.learning_rate * min(1.0, step / max(config.warmup, 1)) * cosine


def pretrain(
    batches: Batches,
    config: TrainingConfig,
    out: Path,
    *,
    model: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    save_at: Sequence[int],
    seed: int = 0,
    on_progress: Watch | None = None,
    every: int = 20,
) -> Path:
    """Train from random weights and leave `out/checkpoint-{step}` for every step of `save_at`; returns `out`.

    Run again, it goes on from the last complete checkpoint, or does nothing if all is there. The same seed gives the same bits,
    resumed or not, on one machine with one number of threads.

    Raises:
        BadInput: a step beyond the last, another run's checkpoints in `out`, or a loss that is no longer finite.
    """
    marks = sorted(set(save_at))
    if not marks or marks[0] < 0 or marks[-1] != config.steps:
        raise BadInput(
            f"checkpoints at {marks} do not fit a run of {config.steps} steps. End with step {config.steps}."
        )
    # Transformers writes into the configuration when it saves: the caller's stays as it was given.
    model = copy.deepcopy(model)
    _same_run(out, {"training": asdict(config), "model": _architecture(model), "save_at": marks, "seed": seed})
    if (out / f"checkpoint-{config.steps}").is_dir():
        return out
    # The callers' random numbers are theirs: the run has its own, and gives them back.
    with torch.random.fork_rng(devices=[]), no_bars():
        _run(batches, config, out, model, tokenizer, set(marks), seed, _Clock(config.steps, every, on_progress))
    return out


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Transformers draws a bar for each folder it reads or writes, over the one that tells of the training."""
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def _run(
    batches: Batches,
    config: TrainingConfig,
    out: Path,
    model_config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    marks: set[int],
    seed: int,
    clock: "_Clock",
) -> None:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(model_config, dtype=torch.float32)
    model.train()
    optimiser = _optimiser(model, config)
    done, tokens = _restore(out, model, optimiser)
    if done is None:
        done, tokens = 0, 0
        if 0 in marks:
            _keep(out, 0, tokens, model, optimiser, tokenizer)
    for step in range(done + 1, config.steps + 1):
        ids = batches(step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        loss = _step(model, optimiser, ids, config.clip)
        tokens += ids.numel()
        clock.tick(step, loss, ids.numel())
        if step in marks:
            _keep(out, step, tokens, model, optimiser, tokenizer)
    shutil.rmtree(out / STATES, ignore_errors=True)


def _step(
    model: PreTrainedModel, optimiser: torch.optim.Optimizer, ids: Int[Tensor, "row token"], clip: float
) -> float:
    logits = model(ids, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    value = loss.item()
    if not math.isfinite(value):
        raise BadInput(f"the loss is {value}: the training diverged. Take a smaller learning rate or a longer warm-up.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    return value


def _optimiser(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.AdamW:
    """Matrices decay; gains and biases do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


STATES = ".training"


def _keep(
    out: Path,
    step: int,
    tokens: int,
    model: PreTrainedModel,
    optimiser: torch.optim.Optimizer,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """State first, then the checkpoint, then the older states go: whenever it is killed, some pair of both is whole."""

    def weights(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        told = {"global_step": step, "num_input_tokens_seen": tokens}
        (folder / "trainer_state.json").write_text(json.dumps(told) + "\n", encoding="utf-8")

    def state(folder: Path) -> None:
        save_file(_moments(model, optimiser), folder / "optimiser.safetensors")
        save_file({"torch": torch.get_rng_state()}, folder / "random.safetensors")

    _folder(out / STATES / str(step), state)
    _folder(out / f"checkpoint-{step}", weights)
    for older in _steps(out / STATES, ""):
        if older < step:
            shutil.rmtree(out / STATES / str(older))


def _folder(path: Path, write: Callable[[Path], None]) -> None:
    """A whole folder or none: written under a temporary name beside it, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)


def _restore(out: Path, model: PreTrainedModel, optimiser: torch.optim.Optimizer) -> tuple[int | None, int]:
    """Put model and optimiser back to the last checkpoint that has its state; its step and tokens."""
    whole = set(_steps(out, "checkpoint-")) & set(_steps(out / STATES, ""))
    if not whole:
        return None, 0
    step = max(whole)
    folder = out / f"checkpoint-{step}"
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(saved.state_dict())
    moments = load_file(out / STATES / str(step) / "optimiser.safetensors")
    for name, parameter in model.named_parameters():
        kept = {key.rsplit("/", 1)[1]: value for key, value in moments.items() if key.startswith(f"{name}/")}
        if kept:
            optimiser.state[parameter] = kept
    torch.set_rng_state(load_file(out / STATES / str(step) / "random.safetensors")["torch"])
    told = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return step, told["num_input_tokens_seen"]


def _moments(model: PreTrainedModel, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors as `parameter/moment`; none before the first step."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def _steps(folder: Path, prefix: str) -> list[int]:
    if not folder.is_dir():
        return []
    found = [re.fullmatch(rf"{prefix}(\d+)", path.name) for path in folder.iterdir()]
    return sorted(int(match.group(1)) for match in found if match)


def _architecture(model: PretrainedConfig) -> dict[str, Any]:
    """The configuration without what depends on who saved it."""
    return {k: v for k, v in model.to_dict().items() if k not in ("transformers_version", "architectures", "dtype")}


def _same_run(out: Path, settings: dict[str, Any]) -> None:
    """`training.json` says whose checkpoints these are: two runs in one folder would make one lineage of both."""
    path = out / "training.json"
    told = json.loads(json.dumps({**settings, "settings": digest(settings)}, default=str))
    if not path.is_file():
        if _steps(out, "checkpoint-"):
            raise BadInput(f"{out} already holds checkpoints of another run. Choose another folder.")
        write_json(path, told)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if before.get("settings") != told["settings"]:
        other = [name for name in settings if before.get(name) != told[name]]
        raise BadInput(
            f"{out} holds a run with other settings ({', '.join(other)}). Choose another folder or remove it."
        )


class _Clock:
    """Calls the watcher every few steps with the mean loss, the speed and the time that is left."""

    def __init__(self, steps: int, every: int, watch: Watch | None) -> None:
        self.steps, self.every, self.watch = steps, every, watch
        self.began = time.perf_counter()
        self.tokens = self.seen = 0
        self.losses: list[float] = []

    def tick(self, step: int, loss: float, tokens: int) -> None:
        self.tokens += tokens
        self.seen += 1
        self.losses.append(loss)
        if self.watch is None or (step % self.every and step != self.steps):
            return
        seconds = time.perf_counter() - self.began
        left = seconds / self.seen * (self.steps - step)
        mean = sum(self.losses) / len(self.losses)
        self.watch(TrainingProgress(step, self.steps, mean, self.tokens / seconds, left))
        self.losses.clear()
