"""Toy models: small networks trained in a generated world, on a text or on chats."""

__all__ = ["in_world", "linear_attention", "matrix_encoder", "on_chats", "on_text", "world_checks"]
