"""Steering one model with interventions: generation, likelihoods, side effects."""

__all__ = [
    "bake",
    "cached_prompts",
    "controls",
    "decoding",
    "generate",
    "guidance",
    "log_likelihood",
    "methods",
    "padding",
    "promote_suppress",
    "refusal_prompts",
    "refusal_score",
    "samples",
    "side_effects",
    "steer",
    "text_scorers",
    "token_selection",
]
