"""Everything that needs several checkpoints: emergence, drift, change points, significance."""

__all__ = [
    "blocks",
    "data_mix",
    "drift",
    "emergence",
    "example_scores",
    "latent_history",
    "measured_checkpoints",
    "phases",
    "significance",
    "summary",
]
