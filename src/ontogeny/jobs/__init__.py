"""Long, resumable jobs: one folder per command."""

__all__ = ["audit", "compare", "evaluate", "monitor", "progress", "resumable", "run_json", "trace", "transfer"]
