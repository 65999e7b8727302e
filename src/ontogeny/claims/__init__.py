"""Claims: what a paper says of a training run, as an effect per seed, an interval over seeds and a verdict."""

__all__ = ["claim", "quantity", "shapes"]
