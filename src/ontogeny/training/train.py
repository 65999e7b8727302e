"""Train a small network and keep its checkpoints: one plain loop for every stage (pretraining, SFT, DPO, GRPO, unlearning).

A checkpoint is a Hugging Face folder `checkpoint-{step}`, written under a temporary name and renamed; the folder of a run opens as a
`Lineage` from the first one on. A killed run, started again, ends with the very weights of an unbroken one.
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
from ontogeny.training import batches as batching
from ontogeny.training import model_parts
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
from ontogeny.training.objectives import Objective, describe_objective
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
    step: int
    steps: int
    loss: float
    """Mean since the last call, nats."""
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
    """Train a language model and leave `out/checkpoint-{step}` for every step of `save_at`; returns `out`.

    `start` is a configuration (random weights, drawn with `seed`) or a checkpoint's folder (a later stage, whose `checkpoint-0` is
    that start). `freeze` and `init` name parts of the model (`ontogeny.training.model_parts`): what stays, and what comes from another run.
    Run again, it goes on from the last complete checkpoint, or does nothing if all is there. The same seed gives the same bits,
    resumed or not, on one machine with one number of threads.

    Raises:
        BadInput: a step beyond the last, another run's checkpoints in `out`, another process at work in it, or a loss that is no
            longer finite.
    """
    # Transformers writes into the configuration when it saves: the caller's stays as it was given.
    begun = Path(start) if isinstance(start, str | Path) else copy.deepcopy(start)

    def save(network: nn.Module, folder: Path) -> None:
        network.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)

    recipe = TrainingRecipe(partial(initial_language_model, begun, freeze, init), batches, objective, config, seed)
    described = {
        "model": describe_start(begun),
        "freeze": list(freeze),
        "init": {part: _weights(folder) for part, folder in init.items()},
    }
    with hide_progress_bars():
        return _run(recipe, out, save, save_at, described, record, _Clock(config.steps, every, on_progress))


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
    """The same loop for what is no language model: `out/checkpoint-{step}/model.safetensors`.

    `make` builds the network (its random numbers are those of `seed`); `objective(network, batch, reference)` is any loss.

    Raises:
        BadInput: as `train`.
    """
    recipe = TrainingRecipe(make, batches, objective, config, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        described = {"model": {name: list(value.shape) for name, value in network_tensors(make()).items()}}
    return _run(recipe, out, save_module, save_at, described, record, _Clock(config.steps, every, on_progress))


def _run(
    recipe: TrainingRecipe,
    out: Path,
    save: SaveModel,
    save_at: Sequence[int],
    described: Mapping[str, Any],
    record: RecordingPlan | None,
    clock: "_Clock",
) -> Path:
    marks = check_schedule(save_at, recipe.config.steps)
    settings = {
        "training": asdict(recipe.config),
        "objective": describe_objective(recipe.objective),
        **described,
        "save_at": list(marks),
        "seed": recipe.seed,
        "record": asdict(record) if record else None,
    }
    with run_lock(out):
        check_same_training_run(out, settings, {"threads": torch.get_num_threads(), "torch": torch.__version__})
        if (out / f"checkpoint-{recipe.config.steps}").is_dir():
            shutil.rmtree(out / STATES_FOLDER, ignore_errors=True)  # a kill right at the end leaves them
            return out
        # The callers' random numbers are theirs: the run has its own, and gives them back.
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
        _keep(out, session, save, recorder)
    while session.step < recipe.config.steps:
        batch = recipe.batches(session.step + 1)
        taken = train_step(session, recipe, batch)
        if recorder is not None:
            recorder.add(batch, taken, session, recipe.config)
        clock.tick(session.step, taken.loss, batching.count_batch_tokens(batch))
        if session.step in marks:
            _keep(out, session, save, recorder)
    shutil.rmtree(out / STATES_FOLDER, ignore_errors=True)


def _keep(out: Path, session: TrainingSession, save: SaveModel, recorder: TrainingRecorder | None) -> None:
    """Rows and state first, then the checkpoint, then the older states go: whenever it is killed, some set of them is whole."""
    if recorder is not None:
        recorder.flush()
    write_training_state(out / STATES_FOLDER / str(session.step), session)
    write_checkpoint(out, session, save)
    delete_old_states(out, before=session.step)


def initial_language_model(
    start: PretrainedConfig | Path, freeze: Sequence[str] = (), init: Mapping[str, Path] = _NO_SOURCES
) -> PreTrainedModel:
    """The network that a run starts from.

    Raises:
        BadInput: `start` is no whole checkpoint, or `freeze` or `init` name parts that the model does not have.
    """
    if isinstance(start, Path):
        network = model_parts.load_float32(start)
    else:
        network = AutoModelForCausalLM.from_config(copy.deepcopy(start), dtype=torch.float32)
    model_parts.initialise_parts(network, init)
    model_parts.freeze_parts(network, freeze)
    return network


def describe_start(start: PretrainedConfig | Path) -> Any:
    """What tells one start from another: the weights, wherever they lie, or the configuration."""
    return _weights(start) if isinstance(start, Path) else _architecture(start)


def _architecture(model: PretrainedConfig) -> dict[str, Any]:
    """The configuration without what depends on who saved it."""
    return {k: v for k, v in model.to_dict().items() if k not in ("transformers_version", "architectures", "dtype")}


def _weights(folder: Path) -> str:
    """Which weights a checkpoint holds, wherever it lies."""
    return weight_fingerprint(Checkpoint(str(folder)))


class _Clock:
    """Calls the watcher every few steps with the mean loss, the speed and the time that is left."""

    def __init__(self, steps: int, every: int, watch: TrainingCallback | None) -> None:
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
