"""The dry run of a transfer: how many checkpoints would be loaded, and how many vectors tried; nothing is read but headers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab.job import prepare, refuse_contradictions
from ontogeny.lab.transfer.job import READING, settled
from ontogeny.lab.transfer.plan import Options, check, targets
from ontogeny.lineage import Lineage


@dataclass(frozen=True)
class Estimate:
    sources: int
    targets: int
    to_trace: int
    """Checkpoints that must be read first."""
    loads: int
    pairs: int
    trials: int
    """Vectors whose effect is measured: sources, random directions, shuffled labels, over all targets and concepts."""


def estimate(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: Path,
    options: Options,
    *,
    traced: bool = False,
    seed: int | None = None,
    allow_pickle: bool = False,
) -> Estimate:
    """Counts from the files of the lineage and of the run, if there is one.

    Raises:
        BadInput: as the transfer itself would, as far as that can be told without a model.
    """
    check(lineage, concepts)
    given = None if seed is None else replace(READING, seed=seed)
    settings, placed = settled(out, given, concepts, must=traced)
    job = prepare(lineage, placed, settings, allow_pickle=allow_pickle)
    run, into = refuse_contradictions(job, out), targets(job, options.into)
    missing = job.missing(run)
    if missing and traced:
        raise BadInput(f"{out} lacks {len(missing)} of these checkpoints. Trace them, or give --out.")
    n = len(job.checkpoints)
    # With the length of its source each vector has nulls of its own.
    nulls = (options.controls + options.shuffles) * (n if options.length == "source" else 1)
    trials = len(into) * (n + nulls) * len(placed) if options.effect else 0
    return Estimate(n, len(into), len(missing), len(missing) + len(into), n * len(into), trials)
