"""Monitor: true-positive rates at a fixed false-positive rate, and frozen probes."""

__all__ = ["cross_concept", "frozen_probes", "linear_monitor", "monitor"]
