"""Processes killed and disks filled at every point at which a job writes."""
