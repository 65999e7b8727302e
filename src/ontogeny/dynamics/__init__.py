"""Everything that needs several checkpoints: emergence, drift, change points, significance."""

__all__ = [
    "blocks",
    "drift",
    "emergence",
    "example_scores",
    "latent_history",
    "measured_checkpoints",
    "phases",
    "significance",
    "summary",
]
