"""Losses of a training, from the log that transformers' Trainer keeps in `trainer_state.json`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ontogeny.errors import BadInput
from ontogeny.lineage import weight_files
from ontogeny.lineage.checkpoint import Checkpoint

_LOSSES = {"loss": "train_loss", "eval_loss": "eval_loss"}
"""Metric of each logged loss."""
_MOST_PER_STAGE = 400
"""Entries of a longer log are averaged over spans of equally many steps."""


@dataclass(frozen=True)
class LoggedLoss:
    """A loss at one step of a stage."""

    metric: str
    """train_loss or eval_loss, nats per token as the trainer logs them."""
    stage: str
    step: int
    tokens: float | None
    value: float
    entries: int
    """Entries of the log that it is the mean of."""


def logged_losses(checkpoints: Iterable[Checkpoint]) -> list[LoggedLoss]:
    """The losses of each stage, from the longest log among its checkpoints on disk; empty without one.

    A resumed training logs steps again: the last entry of a step counts. Entries after the last checkpoint of the stage are left out.
    """
    logs: dict[str, list[dict[str, Any]]] = {}
    last: dict[str, int] = {}
    for checkpoint in checkpoints:
        if not checkpoint.is_local:
            continue
        if checkpoint.step is not None:
            last[checkpoint.stage] = max(checkpoint.step, last.get(checkpoint.stage, 0))
        log = _log(Path(checkpoint.source))
        if len(log) > len(logs.get(checkpoint.stage, ())):
            logs[checkpoint.stage] = log
    return [
        loss
        for stage, log in logs.items()
        for name, metric in _LOSSES.items()
        for loss in _thinned(_losses(log, name, metric, stage, last.get(stage)))
    ]


def _log(folder: Path) -> list[dict[str, Any]]:
    """The log in a checkpoint's folder or in the folder above; empty if there is none or it is damaged."""
    for place in (folder, folder.parent):
        path = place / "trainer_state.json"
        if not path.is_file():
            continue
        try:
            log = weight_files.read_json(path).get("log_history")
        except BadInput:
            continue
        if isinstance(log, list):
            return [entry for entry in log if isinstance(entry, dict) and _is_step(entry.get("step"))]
    return []


def _losses(log: list[dict[str, Any]], name: str, metric: str, stage: str, last: int | None) -> list[LoggedLoss]:
    by_step: dict[int, LoggedLoss] = {}
    for entry in log:
        value, step, tokens = entry.get(name), int(entry["step"]), entry.get("num_input_tokens_seen")
        if not _is_number(value) or (last is not None and step > last):
            continue
        known = float(tokens) if _is_number(tokens) and tokens > 0 else None
        by_step[step] = LoggedLoss(metric, stage, step, known, float(value), 1)
    return [by_step[step] for step in sorted(by_step)]


def _thinned(losses: list[LoggedLoss]) -> list[LoggedLoss]:
    if len(losses) <= _MOST_PER_STAGE:
        return losses
    spans = [
        losses[i * len(losses) // _MOST_PER_STAGE : (i + 1) * len(losses) // _MOST_PER_STAGE]
        for i in range(_MOST_PER_STAGE)
    ]
    return [
        LoggedLoss(end.metric, end.stage, end.step, end.tokens, sum(loss.value for loss in span) / len(span), len(span))
        for span in spans
        for end in (span[-1],)
    ]


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
