"""Training losses: language modelling, DPO, GRPO and unlearning."""

__all__ = ["dpo", "grpo", "language_model", "log_probs", "objective", "unlearning"]
