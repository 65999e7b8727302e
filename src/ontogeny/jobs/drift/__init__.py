"""Drift job: how long each checkpoint keeps to its system prompt in a dialogue, and what helps."""

from ontogeny.jobs.drift.drift import drift
from ontogeny.jobs.drift.plan import DriftSettings

__all__ = ["DriftSettings", "drift"]
