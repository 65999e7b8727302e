"""What a run leaves on disk: checkpoints, and the states from which it goes on bit for bit. Whole folders or none, no pickle.

A state is what the next step depends on: the weights, the optimiser's tensors, the random numbers, the count of tokens.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import logging

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.storage.files import atomic_folder, content_digest, write_json
from ontogeny.training.loop import TrainingSession, load_optimizer_moments, optimizer_moments

STATES_FOLDER = ".training"
"""Where the states lie that a killed run goes on from; gone when the run is done."""
TRAINING_SETTINGS_FILE = "training.json"
SaveModel = Callable[[nn.Module, Path], None]
"""Writes a network into a folder, so that others can open it."""


def write_checkpoint(out: Path, session: TrainingSession, save: SaveModel) -> None:
    """`checkpoint-{step}`, with the step and the tokens where transformers' Trainer writes them."""

    def write(folder: Path) -> None:
        save(session.network, folder)
        told = {"global_step": session.step, **({"num_input_tokens_seen": session.tokens} if session.tokens else {})}
        (folder / "trainer_state.json").write_text(json.dumps(told) + "\n", encoding="utf-8")

    atomic_folder(out / f"checkpoint-{session.step}", write)


def save_module(network: nn.Module, folder: Path) -> None:
    """What is no language model: its tensors alone."""
    save_file(network_tensors(network), folder / "model.safetensors")


def write_training_state(folder: Path, session: TrainingSession) -> None:
    def write(inside: Path) -> None:
        save_file(network_tensors(session.network), inside / "network.safetensors")
        save_file(_untie_tensors(optimizer_moments(session)), inside / "optimiser.safetensors")
        save_file({"torch": torch.get_rng_state()}, inside / "random.safetensors")
        told = {"step": session.step, "tokens": session.tokens}
        (inside / "state.json").write_text(json.dumps(told) + "\n", encoding="utf-8")

    atomic_folder(folder, write)


def load_training_state(folder: Path, session: TrainingSession) -> None:
    """Put a session where a state says; its random numbers are the program's from here on.

    Raises:
        CheckpointFault: the state cannot be read, or is one of another network.
    """
    try:
        weights = load_file(folder / "network.safetensors")
        saved = load_file(folder / "optimiser.safetensors")
        numbers = load_file(folder / "random.safetensors")["torch"]
        told = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except Exception as error:
        raise CheckpointError(
            f"the state {folder} cannot be read ({' '.join(str(error).split())}). Remove it to start again before it."
        ) from error
    load_network_tensors(session.network, weights, str(folder))
    session.optimiser.state.clear()
    load_optimizer_moments(session, saved)
    session.step, session.tokens = told["step"], told["tokens"]
    torch.set_rng_state(numbers)


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and what else a network keeps (running means), tied ones once."""
    kept = set(network.state_dict())
    named = [*network.named_parameters(), *((n, b) for n, b in network.named_buffers() if n in kept)]
    return {name: value.detach().contiguous() for name, value in named}


@torch.no_grad()
def load_network_tensors(network: nn.Module, saved: dict[str, Tensor], where: str) -> None:
    here = network_tensors(network)
    if here.keys() != saved.keys() or any(here[name].shape != saved[name].shape for name in here):
        raise CheckpointError(f"{where} holds another network's weights. Was the model changed since?")
    for name, value in saved.items():
        here[name].copy_(value)


def _untie_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def checkpoint_steps(folder: Path, prefix: str = "checkpoint-") -> list[int]:
    """Steps of the whole checkpoints (or states, with another prefix) in a folder, sorted."""
    if not folder.is_dir():
        return []
    found = [re.fullmatch(rf"{re.escape(prefix)}(\d+)", path.name) for path in folder.iterdir()]
    return sorted(int(match.group(1)) for match in found if match)


def last_resumable_step(out: Path) -> int | None:
    """The last step of which both checkpoint and state are whole."""
    return max(set(checkpoint_steps(out)) & set(checkpoint_steps(out / STATES_FOLDER, "")), default=None)


def delete_old_states(out: Path, *, before: int) -> None:
    for step in checkpoint_steps(out / STATES_FOLDER, ""):
        if step < before:
            shutil.rmtree(out / STATES_FOLDER / str(step))


def check_same_training_run(out: Path, settings: dict[str, Any], notes: dict[str, Any]) -> None:
    """`training.json` says whose checkpoints these are: two runs in one folder would make one lineage of both.

    `notes` are kept for people and do not tell runs apart.
    """
    path = out / TRAINING_SETTINGS_FILE
    told = json.loads(json.dumps({**settings, **notes, "settings": content_digest(settings)}, default=str))
    if not checkpoint_steps(out):  # what never came to a checkpoint is nobody's run
        write_json(path, told)
        return
    if not path.is_file():
        raise BadInput(f"{out} already holds checkpoints of another run. Choose another folder.")
    before = read_training_settings(out)
    if before.get("settings") != told["settings"]:
        other = [name for name in settings if before.get(name) != told[name]]
        raise BadInput(
            f"{out} holds a run with other settings ({', '.join(other)}). Choose another folder or remove it."
        )


def read_training_settings(out: Path) -> dict[str, Any]:
    """What `training.json` of a run says.

    Raises:
        BadInput: it is not there, or no JSON.
    """
    try:
        told: dict[str, Any] = json.loads((out / TRAINING_SETTINGS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{out} is no run of the training loop: it has no {TRAINING_SETTINGS_FILE}. Give its folder."
        ) from None
    except ValueError as error:
        raise BadInput(
            f"{out / TRAINING_SETTINGS_FILE} cannot be read ({error}). Remove the folder to train again."
        ) from error
    return told


@contextlib.contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Transformers draws a bar for each folder it reads or writes, over the one that tells of the training."""
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
