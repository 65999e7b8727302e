"""Everything that needs several checkpoints: emergence, drift, change points, significance."""

__all__ = [
    "blocks",
    "drift",
    "emergence",
    "example_scores",
    "measured_checkpoints",
    "phases",
    "significance",
    "summary",
]
