"""A second pass over a finished run: the same steps again, bit for bit, to look at each of them or to keep more checkpoints.

Floating-point sums depend on the machine and its number of threads: a pass is checked against what the run left on disk.
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
from ontogeny.training.objectives import Objective, describe_objective
from ontogeny.training.recorder import batch_fingerprint, read_recording, recorded_states

StepCallback = Callable[[TrainingSession, Any], None]
"""Called before each step with the session as it stands, and the batch that it will be given."""


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
    """Take steps of a recorded run again; the network as it was after `to_step`, bit for bit.

    Starts from the nearest recorded state before `from_step`; `watch` hears of the steps after `from_step` alone. `make` builds
    the network where it is no language model.

    Raises:
        BadInput: steps outside of the recording, another objective, or batches that are not those of the run.
    """
    rows = {row.step: row for row in read_recording(run)}
    if not 0 <= from_step <= to_step <= max(rows, default=0):
        raise BadInput(
            f"steps {from_step} to {to_step} are not in the recording of {run}: it has 0 to {max(rows, default=0)}."
        )

    def checked(session: TrainingSession, batch: Any) -> None:
        if batch_fingerprint(batch) != rows[session.step + 1].batch:
            raise BadInput(
                f"the batch of step {session.step + 1} is not the one that {run} was trained on. "
                "Give the same function of batches (same corpus, same seed)."
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
    """Keep more checkpoints of a finished run (`schedules.around` names them near an event); the steps that are new.

    Trains again from the nearest recorded state (or from the start), as far as the next checkpoint that is there. Only if every
    old checkpoint on the way is met bit for bit do the new ones join the run.

    Raises:
        BadInput: the run is not finished, has no beginning on disk, or the second pass went another way.
    """
    old = checkpoint_steps(run)
    last = int(read_training_settings(run)["training"]["steps"])
    if last not in old:
        raise BadInput(f"{run} is not finished: it has no checkpoint-{last}. Let it end first.")
    if outside := [step for step in at if not 0 <= step <= last]:
        raise BadInput(f"no step {outside[0]} in {run}: it has 0 to {last}.")
    new = sorted(set(at) - set(old))
    if not new:
        return ()
    aside = run / ".densify"
    save = _saver(run / f"checkpoint-{last}")

    def keep(session: TrainingSession, batch: Any) -> None:
        if session.step in new:
            write_checkpoint(aside, session, save)
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
                os.replace(aside / f"checkpoint-{step}", run / f"checkpoint-{step}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    told = read_training_settings(run)
    write_json(run / TRAINING_SETTINGS_FILE, {**told, "densified": sorted({*told.get("densified", ()), *new})})
    return tuple(new)


def _replay_steps(session: TrainingSession, recipe: TrainingRecipe, to_step: int, watch: StepCallback) -> None:
    while session.step < to_step:
        batch = recipe.batches(session.step + 1)
        watch(session, batch)
        train_step(session, recipe, batch)


def _recipe(
    run: Path, batches: BatchFunction, objective: Objective, make: Callable[[], nn.Module] | None
) -> TrainingRecipe:
    told = read_training_settings(run)
    if describe_objective(objective) != told["objective"]:
        raise BadInput(
            f"{run} was trained with {told['objective']}, not with {describe_objective(objective)}. Give that one."
        )
    config = TrainingConfig(**{**told["training"], "betas": tuple(told["training"]["betas"])})
    if make is None:
        make = partial(_empty_network, run / f"checkpoint-{checkpoint_steps(run)[0]}", tuple(told.get("freeze", ())))
    return TrainingRecipe(make, batches, objective, config, told["seed"])


def _empty_network(checkpoint: Path, freeze: tuple[str, ...]) -> PreTrainedModel:
    """The architecture of a run; its weights are put in from a state."""
    if not (checkpoint / "config.json").is_file():
        raise BadInput(f"{checkpoint} is no language model. Say with make= how its network is built.")
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint), dtype=torch.float32)
    model_parts.freeze_parts(network, freeze)
    return network


def _session_at(run: Path, recipe: TrainingRecipe, step: int) -> TrainingSession:
    """The session at the nearest recorded state up to a step, or at `checkpoint-0`."""
    known, session = recorded_states(run), start_session(recipe)
    first = run / "checkpoint-0"
    if not known and not first.is_dir():
        raise BadInput(
            f"{run} has no beginning on disk: neither checkpoint-0 nor a recording. Train with step 0 in save_at."
        )
    start = load_file(known[0] / "network.safetensors") if known else load_network_weights(first)
    for network in (session.network, session.reference):
        if network is not None:
            load_network_tensors(network, start, str(run))
    if nearest := max((at for at in known if 0 < at <= step), default=None):
        load_training_state(known[nearest], session)
    elif known:
        load_training_state(known[0], session)
    return session


def load_network_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint as they are called in the network (transformers renames some on disk)."""
    if (checkpoint / "config.json").is_file():
        return network_tensors(model_parts.load_float32(checkpoint))
    return load_file(checkpoint / "model.safetensors")


def _check_same_weights(checkpoint: Path, network: nn.Module) -> None:
    here = network_tensors(network)
    for name, value in load_network_weights(checkpoint).items():
        if not torch.equal(here[name], value):
            raise BadInput(
                f"the second pass does not meet {checkpoint} ({name} differs): other batches, another objective, "
                "machine or number of threads. Nothing was kept."
            )


def _saver(example: Path) -> SaveModel:
    """Writes checkpoints like the one given."""
    if not (example / "config.json").is_file():
        return save_module
    beside = [
        path
        for path in example.iterdir()
        if path.suffix != ".safetensors"
        and path.name not in ("config.json", "trainer_state.json", "model.safetensors.index.json")
    ]

    def save(network: nn.Module, folder: Path) -> None:
        network.save_pretrained(folder)  # type: ignore[operator]
        for path in beside:
            shutil.copy2(path, folder / path.name)

    return save
