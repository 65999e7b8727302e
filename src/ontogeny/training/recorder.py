"""What a run did, step by step: enough to walk it again bit for bit, as stage attribution asks (arXiv:2506.00175, section 3).

`recording/steps.jsonl` has one row a step: learning rate, betas and eps or momentum, weight decay, gradient norm, the clip factor that was
applied, loss, which examples (or a hash of the batch). `recording/states/{step}` holds weights, optimiser and random numbers: of step
0, and of every m-th step if asked for.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ontogeny.errors import BadInput
from ontogeny.storage.files import disk_errors, write_json
from ontogeny.training import batches as batching
from ontogeny.training.checkpoints import checkpoint_steps, write_training_state
from ontogeny.training.loop import StepResult, TrainingConfig, TrainingSession

_RECORDING_FOLDER = "recording"


@dataclass(frozen=True)
class RecordingPlan:
    """What to record of a run."""

    states_every: int = 0
    """Keep the state of every m-th step; 0: of step 0 alone, everything else is replayed from there."""
    made_of: Mapping[str, Any] = field(default_factory=dict)
    """How the batch of a step is made (seed, corpus, …), for who replays it: plain words and numbers."""

    def __post_init__(self) -> None:
        if self.states_every < 0:
            raise BadInput(f"states_every is {self.states_every}. Take 0 (step 0 alone) or a number of steps.")


@dataclass(frozen=True)
class StepRecord:
    """What one step was given and did."""

    step: int
    rate: float
    optimiser: str
    betas: tuple[float, float] | None
    """None with sgd."""
    eps: float | None
    momentum: float | None
    """None with adamw."""
    weight_decay: float
    """Of the matrices."""
    norm: float
    clip: float
    loss: float
    tokens: int
    batch: str
    """Hash of the batch's tensors."""
    examples: list[int] | None = None
    """Which examples of the data set, where the batch tells."""


def step_record(batch: Any, taken: StepResult, session: TrainingSession, config: TrainingConfig) -> StepRecord:
    adam = config.optimiser == "adamw"
    return StepRecord(
        step=session.step,
        rate=taken.rate,
        optimiser=config.optimiser,
        betas=config.betas if adam else None,
        eps=session.optimiser.param_groups[0].get("eps"),
        momentum=None if adam else config.momentum,
        weight_decay=config.weight_decay,
        norm=taken.norm,
        clip=taken.clip,
        loss=taken.loss,
        tokens=batching.count_batch_tokens(batch),
        batch=batch_fingerprint(batch),
        examples=batching.example_indices(batch),
    )


def batch_fingerprint(batch: Any) -> str:
    """Sixteen hex digits that change with any number in the batch."""
    found = hashlib.sha256()
    for tensor in batching.batch_tensors(batch):
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


class TrainingRecorder:
    """Writes the record of a run; rows wait in memory until a checkpoint makes them good."""

    def __init__(self, out: Path, plan: RecordingPlan) -> None:
        self.folder, self.plan = out / _RECORDING_FOLDER, plan
        self.waiting: list[StepRecord] = []

    @property
    def path(self) -> Path:
        return self.folder / "steps.jsonl"

    def open(self, session: TrainingSession) -> None:
        """At the start or the resumption of a run: rows after its step will be written again."""
        if session.step == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(self.folder / "plan.json", asdict(self.plan))
            write_training_state(self.folder / "states" / "0", session)
        kept = [row for row in _rows(self.path) if row["step"] <= session.step]
        if [row["step"] for row in kept] != list(range(1, session.step + 1)):
            raise BadInput(
                f"{self.path} does not hold all steps up to {session.step}: this run was not recorded from its start. "
                "Record into another folder."
            )
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            os.replace(temporary, self.path)

    def add(self, batch: Any, taken: StepResult, session: TrainingSession, config: TrainingConfig) -> None:
        self.waiting.append(step_record(batch, taken, session, config))
        if self.plan.states_every and session.step % self.plan.states_every == 0:
            write_training_state(self.folder / "states" / str(session.step), session)

    def flush(self) -> None:
        """Before a checkpoint is written: a resumed run finds the rows of all steps that it does not take again."""
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in self.waiting)
            file.flush()
            os.fsync(file.fileno())
        self.waiting.clear()


def read_recording(run: Path) -> tuple[StepRecord, ...]:
    """The rows of a recorded run, in the order of its steps.

    Raises:
        BadInput: nothing was recorded there.
    """
    path = run / _RECORDING_FOLDER / "steps.jsonl"
    if not path.is_file():
        raise BadInput(f"{run} holds no recording. Train with record=RecordingPlan().")
    return tuple(StepRecord(**{**row, "betas": tuple(row["betas"]) if row["betas"] else None}) for row in _rows(path))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Whole lines; a last one that was cut off when a run was killed does not count."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def recorded_states(run: Path) -> dict[int, Path]:
    """The recorded states of a run by their steps."""
    folder = run / _RECORDING_FOLDER / "states"
    return {step: folder / str(step) for step in checkpoint_steps(folder, "")}
