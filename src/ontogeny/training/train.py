"""Training of a small network with checkpoints: one loop for every stage (pretraining, SFT, DPO, GRPO, unlearning).

A checkpoint is a Hugging Face folder `checkpoint-{step}`, written atomically; a run's folder opens as a `Lineage` from the first one on. A
killed run that is started again ends with the same weights as an uninterrupted one.
"""

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ontogeny.lineage import Checkpoint, weight_fingerprint
from ontogeny.storage.lock import run_lock
from ontogeny.training import model_parts
from ontogeny.training.batches import count_batch_tokens
from ontogeny.training.checkpoint_schedule import check_schedule
from ontogeny.training.checkpoints import (
    STATES_FOLDER,
    SaveModel,
    check_same_training_run,
    delete_old_states,
    hide_progress_bars,
    last_resumable_step,
    load_training_state,
    network_tensors,
    save_language_model,
    save_module,
    write_checkpoint,
    write_training_state,
)
from ontogeny.training.loop import (
    BatchFunction,
    TrainingConfig,
    TrainingRecipe,
    TrainingSession,
    start_session,
    train_step,
)
from ontogeny.training.objectives.objective import Objective, describe_objective
from ontogeny.training.recorder import RecordingPlan, TrainingRecorder

__all__ = [
    "RecordingPlan",
    "TrainingCallback",
    "TrainingConfig",
    "TrainingProgress",
    "hide_progress_bars",
    "train",
    "train_module",
]

_NO_SOURCES: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training run, for its callback."""

    step: int
    steps: int
    loss: float
    """Mean loss since the last call, nats."""
    tokens_per_second: float
    seconds_left: float


TrainingCallback = Callable[[TrainingProgress], None]


def train(
    batches: BatchFunction,
    objective: Objective,
    config: TrainingConfig,
    out: Path,
    *,
    start: PretrainedConfig | Path,
    tokenizer: PreTrainedTokenizerBase,
    save_at: Sequence[int],
    seed: int = 0,
    on_progress: TrainingCallback | None = None,
    every: int = 20,
    record: RecordingPlan | None = None,
    freeze: Sequence[str] = (),
    init: Mapping[str, Path] = _NO_SOURCES,
) -> Path:
    """Train a language model and write `out/checkpoint-{step}` for every step of `save_at`; resumes from the last complete one.

    The same seed gives the same bits, resumed or not, on one machine with one number of threads.

    Args:
        batches: The batch of a step (1, 2, …).
        start: A configuration (random weights, drawn with `seed`), or the folder of a checkpoint (a later stage, whose `checkpoint-0`
            equals it).
        every: Number of steps between calls of `on_progress`.
        freeze: Parts of the model that are not trained (`ontogeny.training.model_parts`).
        init: Parts of the model to copy, each with the folder of a checkpoint.

    Returns:
        `out`.

    Raises:
        BadInput: a schedule that does not fit, another run's checkpoints in `out`, another process that writes there, or a loss that is
            not finite.
    """
    # A copy, since transformers changes the configuration when it saves.
    start = Path(start) if isinstance(start, str | Path) else copy.deepcopy(start)
    recipe = TrainingRecipe(partial(initial_language_model, start, freeze, init), batches, objective, config, seed)
    settings = {
        "model": describe_start(start),
        "freeze": list(freeze),
        "init": {part: _fingerprint(folder) for part, folder in init.items()},
    }
    save, clock = partial(save_language_model, tokenizer), _Clock(config.steps, every, on_progress)
    with hide_progress_bars():
        return _run(recipe, out, save, save_at, settings, record, clock)


def train_module(
    batches: BatchFunction,
    objective: Objective,
    config: TrainingConfig,
    out: Path,
    *,
    make: Callable[[], nn.Module],
    save_at: Sequence[int],
    seed: int = 0,
    on_progress: TrainingCallback | None = None,
    every: int = 20,
    record: RecordingPlan | None = None,
) -> Path:
    """`train` for a network that is not a language model: writes `out/checkpoint-{step}/model.safetensors`.

    Args:
        objective: Any loss `(network, batch, reference) -> scalar`.
        make: Builds the network from the random numbers of `seed`.
    """
    recipe = TrainingRecipe(make, batches, objective, config, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = {"model": {name: list(value.shape) for name, value in network_tensors(make()).items()}}
    return _run(recipe, out, save_module, save_at, settings, record, _Clock(config.steps, every, on_progress))


def _run(
    recipe: TrainingRecipe,
    out: Path,
    save: SaveModel,
    save_at: Sequence[int],
    model_settings: Mapping[str, Any],
    record: RecordingPlan | None,
    clock: "_Clock",
) -> Path:
    marks = check_schedule(save_at, recipe.config.steps)
    settings = {
        "training": asdict(recipe.config),
        "objective": describe_objective(recipe.objective),
        **model_settings,
        "save_at": list(marks),
        "seed": recipe.seed,
        "record": asdict(record) if record else None,
    }
    with run_lock(out):
        check_same_training_run(out, settings, {"threads": torch.get_num_threads(), "torch": torch.__version__})
        if (out / f"checkpoint-{recipe.config.steps}").is_dir():
            shutil.rmtree(out / STATES_FOLDER, ignore_errors=True)  # left if the process was killed at the end
            return out
        # The run seeds its own random numbers; the caller's are restored.
        with torch.random.fork_rng(devices=[]):
            _loop(recipe, out, save, set(marks), TrainingRecorder(out, record) if record else None, clock)
    return out


def _loop(
    recipe: TrainingRecipe,
    out: Path,
    save: SaveModel,
    marks: set[int],
    recorder: TrainingRecorder | None,
    clock: "_Clock",
) -> None:
    session = start_session(recipe)
    done = last_resumable_step(out)
    if done is not None:
        load_training_state(out / STATES_FOLDER / str(done), session)
    if recorder is not None:
        recorder.open(session)
    if done is None and 0 in marks:
        _save(out, session, save, recorder)
    while session.step < recipe.config.steps:
        batch = recipe.batches(session.step + 1)
        result = train_step(session, recipe, batch)
        if recorder is not None:
            recorder.add(batch, result, session, recipe.config)
        clock.tick(session.step, result.loss, count_batch_tokens(batch))
        if session.step in marks:
            _save(out, session, save, recorder)
    shutil.rmtree(out / STATES_FOLDER, ignore_errors=True)


def _save(out: Path, session: TrainingSession, save: SaveModel, recorder: TrainingRecorder | None) -> None:
    """Write rows and state first, then the checkpoint, then delete older states, so that a resumable set exists at any time."""
    if recorder is not None:
        recorder.flush()
    write_training_state(out / STATES_FOLDER / str(session.step), session)
    write_checkpoint(out, partial(save, session.network), step=session.step, tokens=session.tokens)
    delete_old_states(out, before=session.step)


def initial_language_model(
    start: PretrainedConfig | Path, freeze: Sequence[str] = (), init: Mapping[str, Path] = _NO_SOURCES
) -> PreTrainedModel:
    """Build the initial network of a run.

    Raises:
        BadInput: `start` is not a complete checkpoint, or the model lacks a part of `freeze` or `init`.
    """
    if isinstance(start, Path):
        network = model_parts.load_float32(start)
    else:
        network = AutoModelForCausalLM.from_config(copy.deepcopy(start), dtype=torch.float32, trust_remote_code=False)
    model_parts.initialise_parts(network, init)
    model_parts.freeze_parts(network, freeze)
    return network


def describe_start(start: PretrainedConfig | Path) -> Any:
    """The start of a run as JSON, to compare runs: a fingerprint of the weights, or the configuration."""
    if isinstance(start, Path):
        return _fingerprint(start)
    # The keys left out depend on how the configuration was saved.
    return {k: v for k, v in start.to_dict().items() if k not in ("transformers_version", "architectures", "dtype")}


def _fingerprint(folder: Path) -> str:
    model_parts.check_checkpoint(folder)
    return weight_fingerprint(Checkpoint(str(folder)))


class _Clock:
    """Calls the callback every few steps with mean loss, speed and remaining time."""

    def __init__(self, steps: int, every: int, on_progress: TrainingCallback | None) -> None:
        self.steps, self.every, self.on_progress = steps, every, on_progress
        self.start = time.perf_counter()
        self.tokens = self.steps_done = 0
        self.losses: list[float] = []

    def tick(self, step: int, loss: float, tokens: int) -> None:
        self.tokens += tokens
        self.steps_done += 1
        self.losses.append(loss)
        if self.on_progress is None or (step % self.every and step != self.steps):
            return
        seconds = time.perf_counter() - self.start
        left = seconds / self.steps_done * (self.steps - step)
        mean = sum(self.losses) / len(self.losses)
        self.on_progress(TrainingProgress(step, self.steps, mean, self.tokens / seconds, left))
        self.losses.clear()
