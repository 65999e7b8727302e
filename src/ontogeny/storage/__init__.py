"""Run directories: records, directions, checksums, locks, repair and rollback."""

__all__ = ["checksums", "directions", "export", "files", "lock", "parts", "rebuild", "repair", "rollback", "run"]
