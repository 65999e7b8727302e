"""The training run as one object: a tree of stages, each an ordered series of checkpoints, from the Hub or from folders."""

from ontogeny.lineage.checkpoint import Checkpoint, Stage
from ontogeny.lineage.files import Inventory, WeightFile
from ontogeny.lineage.reading import fetch, fingerprint, preflight, sizes
from ontogeny.lineage.streaming import Fetcher, stream
from ontogeny.lineage.tree import Lineage

__all__ = [
    "Checkpoint",
    "Fetcher",
    "Inventory",
    "Lineage",
    "Stage",
    "WeightFile",
    "fetch",
    "fingerprint",
    "preflight",
    "sizes",
    "stream",
]
