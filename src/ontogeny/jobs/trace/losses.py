"""Rows of the training losses, which are drawn below the curves of the concepts."""

from collections.abc import Sequence

from ontogeny.lineage import Checkpoint
from ontogeny.lineage.training_log import logged_losses
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.records import Record
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_PREFIX = "losses-"


def keep_losses(run: Run, lineage: str, checkpoints: Sequence[Checkpoint]) -> None:
    """Write the logged losses of the checkpoints' stages, in place of those of an earlier call; nothing without a log."""
    losses = logged_losses(checkpoints)
    if not losses:
        return
    unit = f"{_PREFIX}{content_digest([[loss.metric, loss.stage, loss.step, loss.value] for loss in losses])}"
    if run.done(unit):
        return
    note = "logged by the trainer"
    rows = [
        Record(
            loss.metric,
            loss.value,
            stage=loss.stage,
            step=loss.step,
            tokens=loss.tokens,
            n=loss.entries,
            split="all",
            note=note if loss.entries == 1 else f"{note}, mean of {loss.entries} entries up to this step",
        )
        for loss in losses
    ]
    run.keep(unit, CheckpointStamp(lineage, unit).sign(rows))
    run.forget(_PREFIX, but=unit)
