"""Recording of a training run, step by step: enough for a bit-identical replay, as stage attribution needs (arXiv:2506.00175, section 3).

`recording/steps.jsonl` has one row per step: learning rate, betas and eps or momentum, weight decay, gradient norm, clip factor, loss, and
the examples (or a hash of the batch). `recording/states/{step}` has weights, optimiser and random numbers of step 0, and of every m-th step
if requested.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ontogeny.errors import BadInput
from ontogeny.storage.files import atomic_path, disk_errors, write_json
from ontogeny.training import batches as batching
from ontogeny.training.checkpoints import checkpoint_steps, write_training_state
from ontogeny.training.loop import StepResult, TrainingConfig, TrainingSession

_RECORDING_FOLDER = "recording"


@dataclass(frozen=True)
class RecordingPlan:
    """Settings of a recording."""

    states_every: int = 0
    """Save the state of every m-th step; 0: only of step 0, from which all others can be replayed."""
    made_of: Mapping[str, Any] = field(default_factory=dict)
    """Description of the batches for a later replay (seed, corpus, …), as JSON."""

    def __post_init__(self) -> None:
        if self.states_every < 0:
            raise BadInput(f"`states_every` must be 0 (only step 0) or a number of steps, got {self.states_every}.")


@dataclass(frozen=True)
class StepRecord:
    """Inputs and figures of one step."""

    step: int
    rate: float
    optimiser: str
    betas: tuple[float, float] | None
    """None with sgd."""
    eps: float | None
    momentum: float | None
    """None with adamw."""
    weight_decay: float
    """Weight decay of matrices."""
    norm: float
    clip: float
    loss: float
    tokens: int
    batch: str
    """Hash of the batch's tensors."""
    examples: list[int] | None = None
    """Indices of the examples in the data set; None if unknown."""


def step_record(batch: Any, result: StepResult, session: TrainingSession, config: TrainingConfig) -> StepRecord:
    adam = config.optimiser == "adamw"
    return StepRecord(
        step=session.step,
        rate=result.rate,
        optimiser=config.optimiser,
        betas=config.betas if adam else None,
        eps=session.optimiser.param_groups[0].get("eps"),
        momentum=None if adam else config.momentum,
        weight_decay=config.weight_decay,
        norm=result.norm,
        clip=result.clip,
        loss=result.loss,
        tokens=batching.count_batch_tokens(batch),
        batch=batch_fingerprint(batch),
        examples=batching.example_indices(batch),
    )


def batch_fingerprint(batch: Any) -> str:
    """Hash of all tensors in a batch, 16 hex digits."""
    digest = hashlib.sha256()
    for tensor in batching.batch_tensors(batch):
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class TrainingRecorder:
    """Writes the recording of a run; rows are buffered in memory until the next checkpoint."""

    def __init__(self, out: Path, plan: RecordingPlan) -> None:
        self.folder, self.plan = out / _RECORDING_FOLDER, plan
        self.buffer: list[StepRecord] = []

    @property
    def path(self) -> Path:
        return self.folder / "steps.jsonl"

    def open(self, session: TrainingSession) -> None:
        """Start or resume a recording: rows after the session's step are dropped, since these steps will be repeated."""
        if session.step == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(self.folder / "plan.json", asdict(self.plan))
            write_training_state(self.folder / "states" / "0", session)
        rows = [row for row in _rows(self.path) if row["step"] <= session.step]
        if [row["step"] for row in rows] != list(range(1, session.step + 1)):
            raise BadInput(
                f"{self.path} must have all steps up to {session.step}, but the run was not recorded from its start: use another folder."
            )
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def add(self, batch: Any, result: StepResult, session: TrainingSession, config: TrainingConfig) -> None:
        self.buffer.append(step_record(batch, result, session, config))
        if self.plan.states_every and session.step % self.plan.states_every == 0:
            write_training_state(self.folder / "states" / str(session.step), session)

    def flush(self) -> None:
        """Write the buffered rows. Called before a checkpoint, so that a resumed run has the rows of all earlier steps."""
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in self.buffer)
            file.flush()
            os.fsync(file.fileno())
        self.buffer.clear()


def read_recording(run: Path) -> tuple[StepRecord, ...]:
    """Rows of a recorded run, in the order of its steps.

    Raises:
        BadInput: the run has no recording, or a row lacks a field.
    """
    path = run / _RECORDING_FOLDER / "steps.jsonl"
    if not path.is_file():
        raise BadInput(f"{run} has no recording: train with record=RecordingPlan().")
    needed = {f.name for f in fields(StepRecord) if f.default is MISSING}
    rows = _rows(path)
    for row in rows:
        if lacking := sorted(needed - row.keys()):
            raise BadInput(
                f"the record {path} lacks {', '.join(lacking)} of step {row.get('step', 'unknown')}: record the training again. The "
                "estimates that need checkpoints only remain: endpoint, subtraction, addition and linearised."
            )
    return tuple(StepRecord(**{**row, "betas": tuple(row["betas"]) if row["betas"] else None}) for row in rows)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Complete lines; an incomplete last one, of a killed run, is dropped."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def recorded_states(run: Path) -> dict[int, Path]:
    """Folders of a run's recorded states by step."""
    folder = run / _RECORDING_FOLDER / "states"
    return {step: folder / str(step) for step in checkpoint_steps(folder, "")}
