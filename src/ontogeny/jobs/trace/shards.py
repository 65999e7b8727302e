"""Split one run over processes on machines that share a folder: each visits a share of the checkpoints; finished units are gathered.

Each shard is a run directory below `shards/`, so that no two processes write into one. A finished unit moves into the run by renames, its
records last, so that an interruption leaves nothing half gathered. The last shard to finish summarises the run.
"""

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.jobs.resumable import SHARDS_FOLDER
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import DamagedPart
from ontogeny.storage.lock import is_locked, run_lock
from ontogeny.storage.run import Run

SETTLE_SECONDS = 120
"""Seconds within which a killed process ends and releases its lock."""


@dataclass(frozen=True)
class Shard:
    """Every `count`-th checkpoint, from the one at `index` on."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard written as `0/16`, …, `15/16`.

        Raises:
            BadInput: it is written in another way.
        """
        index, _, count = text.partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            raise BadInput(
                f"`shard` must be i/n with 0 ≤ i < n, got {text!r}: for an array of 16 tasks take 0/16 to 15/16."
            )
        return cls(int(index), int(count))

    def includes(self, index: int) -> bool:
        """Whether the checkpoint with this index in the series belongs to the shard."""
        return index % self.count == self.index

    def folder(self, run: Run) -> Path:
        return run.folder / SHARDS_FOLDER / f"{self.index}-of-{self.count}"


@dataclass(frozen=True)
class GatherResult:
    """Certificates and failures of shards."""

    certificates: list[Mapping[str, Any]]
    """Their parity certificates."""
    failures: list[Failure]
    """Of the shards that have ended."""


def gather_shards(run: Run) -> GatherResult:
    """Move the finished units of all ended shards into the run, and remove these shards. The caller holds the run's lock."""
    certificates: list[Mapping[str, Any]] = []
    failures: list[Failure] = []
    for folder in sorted((run.folder / SHARDS_FOLDER).glob("*-of-*")):
        share, busy = Run(folder), is_locked(folder)
        if share.about_path.is_file():
            certificates += filter(None, [share.about.get("parity")])
            failures += [] if busy else [Failure(**failure) for failure in share.about.get("failures", [])]
        if busy:
            continue
        for part in sorted((folder / "records").glob("*.parquet")):
            with contextlib.suppress(DamagedPart):  # its unit is measured again
                run.adopt(share, part.stem)
        for entry in share.ledger():
            run.log({**entry, "shard": folder.name})
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
    return GatherResult(certificates, failures)


def choose_certificate(
    known: Mapping[str, Any] | None, others: Sequence[Mapping[str, Any]], visits: Sequence[str]
) -> Mapping[str, Any] | None:
    """The parity certificate of a run: the one that it has, unless that of the first of its visits is among those of its shards.

    Args:
        visits: Names of the checkpoints that are visited, in their order. A certificate of an earlier trace of others stays.
    """
    if known and known.get("checkpoint") not in visits:
        return known
    every = [*filter(None, [known]), *others]
    return next((one for one in every if one.get("checkpoint") in visits[:1]), every[0] if every else None)


def wait_for_dying_workers(run: Run, worker: str = "ray-*-of-*") -> None:
    """Wait until killed workers release their shards, so that these can be gathered.

    Raises:
        BadInput: one of them still writes after two minutes.
    """
    for folder in sorted((run.folder / SHARDS_FOLDER).glob(worker)):
        with run_lock(folder, patience=SETTLE_SECONDS):
            pass
