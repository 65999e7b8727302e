"""Endpoints: what the dashboard answers in JSON, one module per subject; each has a router."""

__all__ = ["atlas", "charts", "chat", "records", "runs", "texts"]
