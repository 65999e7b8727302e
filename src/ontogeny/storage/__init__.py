"""Run directories: records, directions, checksums, locks, repair and rollback."""

__all__ = [
    "checksums",
    "directions",
    "export",
    "failures",
    "files",
    "lock",
    "merging",
    "parts",
    "rebuild",
    "record_filter",
    "repair",
    "rollback",
    "run",
]
