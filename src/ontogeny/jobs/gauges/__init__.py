"""Gauge job: fit, calibrate and check the gauges of one checkpoint, a unit for each concept, and write them as a gauge pack."""

from ontogeny.jobs.gauges.gauges import gauges
from ontogeny.jobs.gauges.plan import GaugePlan, estimate_gauges, plan_gauges

__all__ = ["GaugePlan", "estimate_gauges", "gauges", "plan_gauges"]
