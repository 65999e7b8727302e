"""Gauges: what a model takes its user and itself to be, read from a conversation by the probes of a run, and turned by its directions."""

__all__ = ["control_vector", "conversation", "gauge", "labels", "pin", "reading", "replies"]
