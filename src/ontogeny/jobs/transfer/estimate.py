"""The dry run of a transfer: how many checkpoints would be loaded, and how many vectors tried; nothing is read but headers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.plan import check_plan_matches_run, plan_trace
from ontogeny.jobs.transfer.plan import TransferSettings, check_transfer, transfer_targets
from ontogeny.jobs.transfer.transfer import DEFAULT_READING_SETTINGS, settings_of_run
from ontogeny.lineage import Lineage


@dataclass(frozen=True)
class TransferEstimate:
    sources: int
    targets: int
    to_trace: int
    """Checkpoints that must be read first."""
    loads: int
    pairs: int
    trials: int
    """Vectors whose effect is measured: sources, random directions, shuffled labels, over all targets and concepts."""


def estimate_transfer(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: Path,
    options: TransferSettings,
    *,
    traced: bool = False,
    seed: int | None = None,
    allow_pickle: bool = False,
) -> TransferEstimate:
    """Counts from the files of the lineage and of the run, if there is one.

    Raises:
        BadInput: as the transfer itself would, as far as that can be told without a model.
    """
    check_transfer(lineage, concepts)
    given = None if seed is None else replace(DEFAULT_READING_SETTINGS, seed=seed)
    settings, placed = settings_of_run(out, given, concepts, must=traced)
    job = plan_trace(lineage, placed, settings, allow_pickle=allow_pickle)
    run, into = check_plan_matches_run(job, out), transfer_targets(job, options.into)
    missing = job.missing(run)
    if missing and traced:
        raise BadInput(f"{out} lacks {len(missing)} of these checkpoints. Trace them, or give --out.")
    n = len(job.checkpoints)
    # With the length of its source each vector has nulls of its own.
    nulls = (options.controls + options.shuffles) * (n if options.length == "source" else 1)
    trials = len(into) * (n + nulls) * len(placed) if options.effect else 0
    return TransferEstimate(n, len(into), len(missing), len(missing) + len(into), n * len(into), trials)
