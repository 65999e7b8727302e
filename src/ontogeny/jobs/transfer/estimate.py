"""Dry run of a transfer: checkpoints to load and vectors to try. Reads only headers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ontogeny.data.concept import Concept
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.transfer.plan import (
    AVERAGE_RULES,
    AVERAGED_COUNTS,
    TransferSettings,
    check_transfer,
    checkpoints_to_average,
    open_trace,
    transfer_targets,
)
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


def _count_averages(plan: TracePlan, into: str | None) -> int:
    """Number of averaged vectors that are tried: of each number of checkpoints by three rules, on the last target of each stage."""
    last = {target.stage: target for target in transfer_targets(plan, into)}
    targets = last.values() if into is None else transfer_targets(plan, into)
    earlier = [len(checkpoints_to_average(plan, target)) for target in targets]
    return sum(AVERAGE_RULES * sum(count <= most for count in AVERAGED_COUNTS) for most in earlier)


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
    effects = n * targets + _count_averages(plan, settings.into) if settings.effect else 0
    return TransferEstimate(n, targets, missing, missing + targets, n * targets, trials, effects)
