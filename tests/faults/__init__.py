"""Processes that die, and disks that fill up, at every point at which a job writes."""
