"""Dry run of a transfer: checkpoints to load and vectors to try. Reads only headers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ontogeny.data.concept import Concept
from ontogeny.jobs.transfer.plan import TransferSettings, check_transfer, open_trace, transfer_targets
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions


@dataclass(frozen=True)
class TransferEstimate:
    """Cost of a transfer."""

    sources: int
    targets: int
    to_trace: int
    """Checkpoints that must be traced first."""
    loads: int
    pairs: int
    trials: int
    """Vectors whose effect is measured, nulls included, over all targets and concepts."""
    effects: int
    """Effects of one concept that are corrected together; 0 without effects."""


def estimate_transfer(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: str | Path,
    settings: TransferSettings,
    *,
    reading: TraceSettings | None = None,
    traced: bool = False,
    model: ModelOptions | None = None,
) -> TransferEstimate:
    """Estimate a transfer from the files of the lineage and of the run, if there is one. For the arguments see `transfer`.

    Raises:
        BadInput: as `transfer`, as far as that can be checked without a model.
    """
    check_transfer(lineage, concepts)
    plan, run = open_trace(lineage, concepts, out, reading, traced=traced, model=model)
    n, targets, missing = len(plan.checkpoints), len(transfer_targets(plan, settings.into)), len(plan.missing(run))
    # With the lengths of the sources each vector has its own nulls.
    nulls = (settings.controls + settings.shuffles) * (n if settings.length == "source" else 1)
    trials = targets * (n + nulls) * len(concepts) if settings.effect else 0
    effects = n * targets if settings.effect else 0
    return TransferEstimate(n, targets, missing, missing + targets, n * targets, trials, effects)
