"""Long, resumable jobs: one folder per command."""

__all__ = ["audit", "compare", "evaluate", "harness", "monitor", "progress", "run_json", "trace", "transfer"]
