"""Run directories: records, directions, locks and rollback."""

__all__ = ["directions", "export", "files", "lock", "parts", "rollback", "run"]
