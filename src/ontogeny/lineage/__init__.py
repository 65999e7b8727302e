"""Lineage: a training run as a tree of stages with ordered checkpoints, from the Hub or from folders."""

from ontogeny.lineage.checkpoint import Checkpoint, Stage
from ontogeny.lineage.fetch import FileDigests, checkpoint_files, fetch_checkpoint, weight_bytes, weight_fingerprint
from ontogeny.lineage.lineage import Lineage
from ontogeny.lineage.prefetch import Prefetcher, prefetch_checkpoints
from ontogeny.lineage.weight_files import CheckpointFiles, WeightFile

__all__ = [
    "Checkpoint",
    "CheckpointFiles",
    "FileDigests",
    "Lineage",
    "Prefetcher",
    "Stage",
    "WeightFile",
    "checkpoint_files",
    "fetch_checkpoint",
    "prefetch_checkpoints",
    "weight_bytes",
    "weight_fingerprint",
]
