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
from ontogeny.lab import components
from ontogeny.lab.keeping import (
    SETTINGS,
    Save,
    no_bars,
    put_tensors,
    read_settings,
    read_state,
    save_module,
    steps_in,
    tensors_of,
    write_checkpoint,
)
from ontogeny.lab.loop import Batches, Recipe, Session, TrainingConfig, advance, begin
from ontogeny.lab.objectives import Objective, describe
from ontogeny.lab.recorder import fingerprint, recording, states
from ontogeny.store import disk_errors, write_json

Watch = Callable[[Session, Any], None]
"""Called before each step with the session as it stands, and the batch that it will be given."""


def replay(
    run: Path,
    from_step: int,
    to_step: int,
    *,
    batches: Batches,
    objective: Objective,
    make: Callable[[], nn.Module] | None = None,
    watch: Watch | None = None,
) -> nn.Module:
    """Take steps of a recorded run again; the network as it was after `to_step`, bit for bit.

    Starts from the nearest recorded state before `from_step`; `watch` hears of the steps after `from_step` alone. `make` builds
    the network where it is no language model.

    Raises:
        BadInput: steps outside of the recording, another objective, or batches that are not those of the run.
    """
    rows = {row.step: row for row in recording(run)}
    if not 0 <= from_step <= to_step <= max(rows, default=0):
        raise BadInput(
            f"steps {from_step} to {to_step} are not in the recording of {run}: it has 0 to {max(rows, default=0)}."
        )

    def checked(session: Session, batch: Any) -> None:
        if fingerprint(batch) != rows[session.step + 1].batch:
            raise BadInput(
                f"the batch of step {session.step + 1} is not the one that {run} was trained on. "
                "Give the same function of batches (same corpus, same seed)."
            )
        if watch is not None and session.step >= from_step:
            watch(session, batch)

    with torch.random.fork_rng(devices=[]), no_bars():
        recipe = _recipe(run, batches, objective, make)
        session = _from(run, recipe, from_step)
        _walk(session, recipe, to_step, checked)
    return session.network


def densify(
    run: Path,
    at: Collection[int],
    *,
    batches: Batches,
    objective: Objective,
    make: Callable[[], nn.Module] | None = None,
) -> tuple[int, ...]:
    """Keep more checkpoints of a finished run (`schedules.around` names them near an event); the steps that are new.

    Trains again from the nearest recorded state (or from the start), as far as the next checkpoint that is there. Only if every
    old checkpoint on the way is met bit for bit do the new ones join the run.

    Raises:
        BadInput: the run is not finished, has no beginning on disk, or the second pass went another way.
    """
    old = steps_in(run)
    last = int(read_settings(run)["training"]["steps"])
    if last not in old:
        raise BadInput(f"{run} is not finished: it has no checkpoint-{last}. Let it end first.")
    if outside := [step for step in at if not 0 <= step <= last]:
        raise BadInput(f"no step {outside[0]} in {run}: it has 0 to {last}.")
    new = sorted(set(at) - set(old))
    if not new:
        return ()
    aside = run / ".densify"
    save = _saver(run / f"checkpoint-{last}")

    def keep(session: Session, batch: Any) -> None:
        if session.step in new:
            write_checkpoint(aside, session, save)
        if session.step in old:
            _meet(run / f"checkpoint-{session.step}", session.network)

    try:
        with torch.random.fork_rng(devices=[]), no_bars():
            recipe = _recipe(run, batches, objective, make)
            session = _from(run, recipe, new[0])
            _walk(session, recipe, min(step for step in old if step > new[-1]), keep)
            keep(session, None)
        with disk_errors(run):
            for step in new:
                os.replace(aside / f"checkpoint-{step}", run / f"checkpoint-{step}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    told = read_settings(run)
    write_json(run / SETTINGS, {**told, "densified": sorted({*told.get("densified", ()), *new})})
    return tuple(new)


def _walk(session: Session, recipe: Recipe, to_step: int, watch: Watch) -> None:
    while session.step < to_step:
        batch = recipe.batches(session.step + 1)
        watch(session, batch)
        advance(session, recipe, batch)


def _recipe(run: Path, batches: Batches, objective: Objective, make: Callable[[], nn.Module] | None) -> Recipe:
    told = read_settings(run)
    if describe(objective) != told["objective"]:
        raise BadInput(f"{run} was trained with {told['objective']}, not with {describe(objective)}. Give that one.")
    config = TrainingConfig(**{**told["training"], "betas": tuple(told["training"]["betas"])})
    if make is None:
        make = partial(_unfilled, run / f"checkpoint-{steps_in(run)[0]}", tuple(told.get("freeze", ())))
    return Recipe(make, batches, objective, config, told["seed"])


def _unfilled(checkpoint: Path, freeze: tuple[str, ...]) -> PreTrainedModel:
    """The architecture of a run; its weights are put in from a state."""
    if not (checkpoint / "config.json").is_file():
        raise BadInput(f"{checkpoint} is no language model. Say with make= how its network is built.")
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint), dtype=torch.float32)
    components.freeze(network, freeze)
    return network


def _from(run: Path, recipe: Recipe, step: int) -> Session:
    """The session at the nearest recorded state up to a step, or at `checkpoint-0`."""
    known, session = states(run), begin(recipe)
    first = run / "checkpoint-0"
    if not known and not first.is_dir():
        raise BadInput(
            f"{run} has no beginning on disk: neither checkpoint-0 nor a recording. Train with step 0 in save_at."
        )
    start = load_file(known[0] / "network.safetensors") if known else weights_of(first)
    for network in (session.network, session.reference):
        if network is not None:
            put_tensors(network, start, str(run))
    if nearest := max((at for at in known if 0 < at <= step), default=None):
        read_state(known[nearest], session)
    elif known:
        read_state(known[0], session)
    return session


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint as they are called in the network (transformers renames some on disk)."""
    if (checkpoint / "config.json").is_file():
        return tensors_of(components.opened(checkpoint))
    return load_file(checkpoint / "model.safetensors")


def _meet(checkpoint: Path, network: nn.Module) -> None:
    here = tensors_of(network)
    for name, value in weights_of(checkpoint).items():
        if not torch.equal(here[name], value):
            raise BadInput(
                f"the second pass does not meet {checkpoint} ({name} differs): other batches, another objective, "
                "machine or number of threads. Nothing was kept."
            )


def _saver(example: Path) -> Save:
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
