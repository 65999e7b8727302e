"""Bit-identical replay of a recorded or finished run, to inspect each step or to save more checkpoints.

Floating-point sums depend on the machine and its number of threads, so a replay is compared with the run's files.
"""

import os
import shutil
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ontogeny.errors import BadInput
from ontogeny.storage.files import disk_errors, write_json
from ontogeny.training import model_parts
from ontogeny.training.checkpoints import (
    TRAINING_SETTINGS_FILE,
    SaveModel,
    checkpoint_steps,
    hide_progress_bars,
    load_network_tensors,
    load_training_state,
    network_tensors,
    read_training_settings,
    save_module,
    write_checkpoint,
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
from ontogeny.training.recorder import batch_fingerprint, read_recording, recorded_states

StepCallback = Callable[[TrainingSession, Any], None]
"""Called before each step with the session and the batch."""


def replay(
    run: Path,
    from_step: int,
    to_step: int,
    *,
    batches: BatchFunction,
    objective: Objective,
    make: Callable[[], nn.Module] | None = None,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Repeat steps of a recorded run, from the nearest recorded state up to `from_step`; returns the network after `to_step`.

    Args:
        make: Builds the network if it is not a language model.
        watch: Called before each step after `from_step`.

    Raises:
        BadInput: steps outside the recording, another objective, or other batches than those of the run.
    """
    rows = {row.step: row for row in read_recording(run)}
    if not 0 <= from_step <= to_step <= max(rows, default=0):
        raise BadInput(
            f"steps must be in the recording of {run}, 0 to {max(rows, default=0)}, got {from_step} to {to_step}."
        )

    def checked(session: TrainingSession, batch: Any) -> None:
        if batch_fingerprint(batch) != rows[session.step + 1].batch:
            raise BadInput(
                f"the batch of step {session.step + 1} must be that of {run}, got another one: use the same `batches` (corpus and seed)."
            )
        if watch is not None and session.step >= from_step:
            watch(session, batch)

    with torch.random.fork_rng(devices=[]), hide_progress_bars():
        recipe = _recipe(run, batches, objective, make)
        session = _session_at(run, recipe, from_step)
        _replay_steps(session, recipe, to_step, checked)
    return session.network


def densify(
    run: Path,
    at: Collection[int],
    *,
    batches: BatchFunction,
    objective: Objective,
    make: Callable[[], nn.Module] | None = None,
) -> tuple[int, ...]:
    """Add checkpoints to a finished run, for example at `checkpoint_schedule.steps_around`; returns the new steps.

    Trains again from the nearest recorded state (or from the start) up to the next saved checkpoint. The new checkpoints are kept only if
    every old one on the way is reproduced bit for bit.

    Raises:
        BadInput: the run is unfinished, its initial state is not on disk, or the replay diverges.
    """
    old = checkpoint_steps(run)
    last = int(read_training_settings(run)["training"]["steps"])
    if last not in old:
        raise BadInput(f"{run} is not finished, since it has no checkpoint-{last}: resume it first.")
    if outside := [step for step in at if not 0 <= step <= last]:
        raise BadInput(f"steps of {run} must be 0 to {last}, got {outside[0]}.")
    new = sorted(set(at) - set(old))
    if not new:
        return ()
    temporary = run / ".densify"
    save = _saver(run / f"checkpoint-{last}")

    def keep(session: TrainingSession, batch: Any) -> None:
        if session.step in new:
            save_network = partial(save, session.network)
            write_checkpoint(temporary, save_network, step=session.step, tokens=session.tokens)
        if session.step in old:
            _check_same_weights(run / f"checkpoint-{session.step}", session.network)

    try:
        with torch.random.fork_rng(devices=[]), hide_progress_bars():
            recipe = _recipe(run, batches, objective, make)
            session = _session_at(run, recipe, new[0])
            _replay_steps(session, recipe, min(step for step in old if step > new[-1]), keep)
            keep(session, None)
        with disk_errors(run):
            for step in new:
                os.replace(temporary / f"checkpoint-{step}", run / f"checkpoint-{step}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    settings = read_training_settings(run)
    densified = sorted({*settings.get("densified", ()), *new})
    write_json(run / TRAINING_SETTINGS_FILE, {**settings, "densified": densified})
    return tuple(new)


def _replay_steps(session: TrainingSession, recipe: TrainingRecipe, to_step: int, watch: StepCallback) -> None:
    while session.step < to_step:
        batch = recipe.batches(session.step + 1)
        watch(session, batch)
        train_step(session, recipe, batch)


def _recipe(
    run: Path, batches: BatchFunction, objective: Objective, make: Callable[[], nn.Module] | None
) -> TrainingRecipe:
    settings = read_training_settings(run)
    if (given := describe_objective(objective)) != settings["objective"]:
        raise BadInput(f"{run} was trained with {settings['objective']}, got the objective {given}: give the same one.")
    config = TrainingConfig(**{**settings["training"], "betas": tuple(settings["training"]["betas"])})
    if make is None:
        first = run / f"checkpoint-{checkpoint_steps(run)[0]}"
        make = partial(_empty_network, first, tuple(settings.get("freeze", ())))
    return TrainingRecipe(make, batches, objective, config, settings["seed"])


def _empty_network(checkpoint: Path, freeze: tuple[str, ...]) -> PreTrainedModel:
    """A network of the checkpoint's architecture; a state fills in the weights."""
    if not (checkpoint / "config.json").is_file():
        raise BadInput(f"{checkpoint} is not a language model: give a function that builds it as `make`.")
    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model_parts.freeze_parts(network, freeze)
    return network


def _session_at(run: Path, recipe: TrainingRecipe, step: int) -> TrainingSession:
    """The session at the nearest recorded state up to a step, or at `checkpoint-0`."""
    states, session = recorded_states(run), start_session(recipe)
    first = run / "checkpoint-0"
    if not states and not first.is_dir():
        raise BadInput(f"{run} has neither checkpoint-0 nor a recording: train with step 0 in `save_at`.")
    start = load_file(states[0] / "network.safetensors") if states else load_network_weights(first)
    for network in (session.network, session.reference):
        if network is not None:
            load_network_tensors(network, start, str(run))
    if states:
        load_training_state(states[max((at for at in states if 0 < at <= step), default=0)], session)
    return session


def load_network_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by their names in the network (transformers renames some on disk)."""
    if (checkpoint / "config.json").is_file():
        return network_tensors(model_parts.load_float32(checkpoint))
    return load_file(checkpoint / "model.safetensors")


def _check_same_weights(checkpoint: Path, network: nn.Module) -> None:
    tensors = network_tensors(network)
    for name, value in load_network_weights(checkpoint).items():
        if not torch.equal(tensors[name], value):
            raise BadInput(
                f"the replay does not reproduce {checkpoint} ({name} differs), and nothing was saved: use the same batches, objective, "
                "machine and number of threads."
            )


def _saver(example: Path) -> SaveModel:
    """A function that writes checkpoints with the same files as the example."""
    if not (example / "config.json").is_file():
        return save_module
    other_files = [
        path
        for path in example.iterdir()
        if path.suffix != ".safetensors"
        and path.name not in ("config.json", "trainer_state.json", "model.safetensors.index.json")
    ]

    def save(network: nn.Module, folder: Path) -> None:
        network.save_pretrained(folder)  # type: ignore[operator]
        for path in other_files:
            shutil.copy2(path, folder / path.name)

    return save
