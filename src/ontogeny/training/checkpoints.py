"""Checkpoints and training states on disk. Folders are written atomically, without pickle.

A training state has everything that the next step depends on, for a bit-identical resume: weights, optimiser tensors, random number
state, token count.
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
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.storage.files import atomic_folder, content_digest, write_json
from ontogeny.training.loop import TrainingSession, load_optimizer_moments, optimizer_moments

STATES_FOLDER = ".training"
"""Folder of the training states to resume from; deleted when the run is done."""
TRAINING_SETTINGS_FILE = "training.json"
SaveModel = Callable[[nn.Module, Path], None]
"""Writes a network into a folder in a format that `Lineage` opens."""


def write_checkpoint(out: Path, save: Callable[[Path], None], *, step: int, tokens: int = 0) -> None:
    """Write `out/checkpoint-{step}`, with step and token count in `trainer_state.json` as transformers' Trainer does."""

    def write(folder: Path) -> None:
        save(folder)
        state = {"global_step": step, **({"num_input_tokens_seen": tokens} if tokens else {})}
        (folder / "trainer_state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")

    atomic_folder(out / f"checkpoint-{step}", write)


def save_language_model(tokenizer: PreTrainedTokenizerBase, network: nn.Module, folder: Path) -> None:
    network.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def save_module(network: nn.Module, folder: Path) -> None:
    """Save the tensors of a network that is not a language model."""
    save_file(network_tensors(network), folder / "model.safetensors")


def write_training_state(folder: Path, session: TrainingSession) -> None:
    def write(inside: Path) -> None:
        save_file(network_tensors(session.network), inside / "network.safetensors")
        moments = {name: value.detach().contiguous() for name, value in optimizer_moments(session).items()}
        save_file(moments, inside / "optimiser.safetensors")
        save_file({"torch": torch.get_rng_state()}, inside / "random.safetensors")
        counts = {"step": session.step, "tokens": session.tokens}
        (inside / "state.json").write_text(json.dumps(counts) + "\n", encoding="utf-8")

    atomic_folder(folder, write)


def load_training_state(folder: Path, session: TrainingSession) -> None:
    """Restore a session, and the process's random number state, from a saved state.

    Raises:
        CheckpointError: the state cannot be read, or belongs to another network.
    """
    try:
        weights = load_file(folder / "network.safetensors")
        moments = load_file(folder / "optimiser.safetensors")
        rng_state = load_file(folder / "random.safetensors")["torch"]
        counts = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except Exception as error:
        raise CheckpointError(
            f"the state {folder} cannot be read ({' '.join(str(error).split())}): remove it to resume from an earlier one."
        ) from error
    load_network_tensors(session.network, weights, str(folder))
    session.optimiser.state.clear()
    load_optimizer_moments(session, moments)
    session.step, session.tokens = counts["step"], counts["tokens"]
    torch.set_rng_state(rng_state)


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied ones once."""
    persistent = set(network.state_dict())
    tensors = [*network.named_parameters(), *((n, b) for n, b in network.named_buffers() if n in persistent)]
    return {name: value.detach().contiguous() for name, value in tensors}


@torch.no_grad()
def load_network_tensors(network: nn.Module, saved: dict[str, Tensor], where: str) -> None:
    tensors = network_tensors(network)
    if tensors.keys() != saved.keys() or any(tensors[name].shape != saved[name].shape for name in tensors):
        raise CheckpointError(f"{where} must have the weights of this network, got others: was the model changed?")
    for name, value in saved.items():
        tensors[name].copy_(value)


def checkpoint_steps(folder: Path, prefix: str = "checkpoint-") -> list[int]:
    """Steps of the checkpoints (or states, with another prefix) in a folder, sorted."""
    if not folder.is_dir():
        return []
    matches = (re.fullmatch(rf"{re.escape(prefix)}(\d+)", path.name) for path in folder.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def last_resumable_step(out: Path) -> int | None:
    """The last step with both a checkpoint and a training state."""
    return max(set(checkpoint_steps(out)) & set(checkpoint_steps(out / STATES_FOLDER, "")), default=None)


def delete_old_states(out: Path, *, before: int) -> None:
    for step in checkpoint_steps(out / STATES_FOLDER, ""):
        if step < before:
            shutil.rmtree(out / STATES_FOLDER / str(step))


def check_same_training_run(out: Path, settings: dict[str, Any], notes: dict[str, Any]) -> None:
    """Write `training.json`, or compare it with the settings: checkpoints of two runs in one folder would look like one lineage.

    Args:
        notes: Written too, but not compared.

    Raises:
        BadInput: `out` has checkpoints of another run.
    """
    path = out / TRAINING_SETTINGS_FILE
    content = json.loads(json.dumps({**settings, **notes, "settings": content_digest(settings)}, default=str))
    if not checkpoint_steps(out):  # no checkpoint was saved, so there is nothing to resume
        write_json(path, content)
        return
    if not path.is_file():
        raise BadInput(f"`out` must not contain checkpoints of another run, got {out}: choose another folder.")
    before = read_training_settings(out)
    if before.get("settings") != content["settings"]:
        changed = [name for name in settings if before.get(name) != content[name]]
        raise BadInput(
            f"{out} has a run with other settings ({', '.join(changed)}): choose another folder, or remove it."
        )


def read_training_settings(out: Path) -> dict[str, Any]:
    """Content of a run's `training.json`.

    Raises:
        BadInput: the file is missing or not JSON.
    """
    try:
        settings: dict[str, Any] = json.loads((out / TRAINING_SETTINGS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{out} is not a run of the training loop, since it has no {TRAINING_SETTINGS_FILE}: give the run's folder."
        ) from None
    except ValueError as error:
        raise BadInput(
            f"{out / TRAINING_SETTINGS_FILE} cannot be read ({error}): remove the folder to train again."
        ) from error
    return settings


@contextlib.contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Turn off the progress bars of transformers, which would overwrite the bar of the training."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
