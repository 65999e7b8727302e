"""Trace: probe concepts at every site of every checkpoint."""

__all__ = [
    "causal",
    "digests",
    "estimate",
    "execution",
    "executor",
    "losses",
    "plan",
    "ray_cluster",
    "ray_executor",
    "ray_worker",
    "reread",
    "shards",
    "trace",
]
