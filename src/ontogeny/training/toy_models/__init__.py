"""Toy models: small networks trained in a generated world or on a text."""

__all__ = ["in_world", "linear_attention", "matrix_encoder", "on_text", "world_checks"]
