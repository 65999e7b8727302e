"""Toy models: small networks trained in a generated world or on a text."""

__all__ = ["in_world", "on_text", "world_checks"]
