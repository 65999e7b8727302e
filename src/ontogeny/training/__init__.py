"""Training small models whose checkpoints can be traced, replayed and recorded."""

__all__ = [
    "batches",
    "checkpoint_schedule",
    "checkpoints",
    "grpo",
    "in_memory",
    "loop",
    "model_parts",
    "multi_seed",
    "objectives",
    "recorder",
    "replay",
    "rollouts",
    "toy_models",
    "train",
    "trl",
    "trl_trainers",
]
