"""The lab: one file a job."""
