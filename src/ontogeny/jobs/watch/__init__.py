"""Watching a training: concepts measured on the model in training or on each checkpoint as it is saved, alerts, trackers."""

__all__ = [
    "alerts",
    "arrivals",
    "callback",
    "doctor",
    "follow",
    "inner_network",
    "live_plan",
    "pace",
    "rollouts",
    "series",
    "trackers",
    "transports",
    "undisturbed",
    "watcher",
]
