"""Long, resumable jobs: one folder per command."""

__all__ = [
    "audit",
    "compare",
    "drift",
    "edit",
    "evaluate",
    "gauges",
    "geometry",
    "inputs",
    "lens",
    "monitor",
    "processes",
    "progress",
    "reading",
    "resumable",
    "run_json",
    "sae",
    "study",
    "trace",
    "transfer",
    "watch",
]
