"""Trace: probe concepts at every site of every checkpoint."""

__all__ = [
    "causal",
    "digests",
    "estimate",
    "execution",
    "executor",
    "finished",
    "frozen",
    "losses",
    "plan",
    "plane_reader",
    "planes",
    "ray_cluster",
    "ray_executor",
    "ray_worker",
    "reread",
    "shards",
    "surface",
    "trace",
]
