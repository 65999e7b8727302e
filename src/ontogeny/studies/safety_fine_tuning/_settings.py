"""Settings of the study of safety fine-tuning."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    width: int = 48
    layers: int = 2
    steps: int = 500
    """Steps of pretraining."""
    rate: float = 5e-3
    batch: int = 64
    tune_steps: int = 120
    """Steps of each fine-tuning."""
    tune_rate: float = 5e-4
    """Learning rate of the stronger fine-tuning, a tenth of that of pretraining; the weaker one has a tenth of it."""
    tune_batch: int = 48
    unsafe_share: float = 0.2
    """Share of unsafe prompts in supervised fine-tuning; in DPO and unlearning a half."""
    prompts: int = 128
    """Prompts of each evaluation set."""
    measured: int = 44
    """Measured steps along the fine-tuning path, spaced as squares."""
    draws: int = 20
    """Draws of each null."""
    attack_steps: int = 10
    """Steps of the projected gradient of the adversarial soft tokens."""


METHODS = ("SSFT", "DPO", "unlearning")
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
SHUFFLED = "shuffled"
"""Null run: the same fine-tuning with refusals at random prompts."""
