"""One run by many processes, on as many machines as see one folder: each takes its share of the checkpoints, and what is done is gathered.

A share is a run directory of its own below `shards/`, so that no two processes write into one. A finished unit moves into the run
by renames, its records last: whoever dies leaves nothing half gathered. The last to finish relates the checkpoints.
"""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.storage.lock import is_locked
from ontogeny.storage.run import Run

SHARDS_FOLDER = "shards"


@dataclass(frozen=True)
class Shard:
    """Every `count`-th checkpoint, from the one at `index` on."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`0/16`, …, `15/16`.

        Raises:
            BadInput: not that.
        """
        index, _, count = text.partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            raise BadInput(
                f"a shard is written i/n with 0 ≤ i < n, given {text!r}. For an array of 16 tasks: 0/16 to 15/16."
            )
        return cls(int(index), int(count))

    def takes(self, place: int) -> bool:
        """Whether the checkpoint at this place of the series is in its share."""
        return place % self.count == self.index

    def folder(self, run: Run) -> Path:
        return run.folder / SHARDS_FOLDER / f"{self.index}-of-{self.count}"


@dataclass(frozen=True)
class GatherResult:
    parity: object
    """A certificate that a share brought, or None."""
    failures: list[dict[str, str]]
    """Of the shares that ended."""


def gather_shards(run: Run) -> GatherResult:
    """Move the finished units of all shares into the run, and drop the shares that have ended.

    Call it while nobody else writes into the run. Shares at work keep what they have for later.
    """
    parity: object = None
    failures: list[dict[str, str]] = []
    for folder in sorted((run.folder / SHARDS_FOLDER).glob("*-of-*")):
        share, busy = Run(folder), is_locked(folder)
        if share.about_path.is_file():
            parity = parity or share.about.get("parity")
            failures += [] if busy else share.about.get("failures", [])
        if busy:
            continue
        for part in sorted((folder / "records").glob("*.parquet")):
            run.adopt(share, part.stem)
        for entry in share.ledger():
            run.log({**entry, "shard": folder.name})
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
    return GatherResult(parity, failures)
