"""Watching a training: concepts measured on the model in training or on each checkpoint as it is saved, alerts, trackers."""

__all__ = [
    "arrivals",
    "callback",
    "cost_clock",
    "doctor",
    "follow",
    "inner_network",
    "live_plan",
    "pace",
    "rollouts",
    "undisturbed",
    "watcher",
]
