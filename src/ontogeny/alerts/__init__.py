"""Alerts on a curve that grows: a concept emerges, a probe collapses, a direction turns, confidence drifts; and where they are sent."""

__all__ = ["detection", "series", "trackers", "transports"]
