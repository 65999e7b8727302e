"""A run for people: one HTML file, or findings in a terminal."""

__all__ = ["html", "terminal"]
