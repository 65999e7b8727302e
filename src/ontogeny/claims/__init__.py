"""Claims of papers about training runs: an effect per seed, an interval over seeds and a verdict."""

__all__ = ["claim", "quantity", "shapes"]
