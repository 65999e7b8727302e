"""Settings of the study of self-verification."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    width: int = 64
    layers: int = 3
    heads: int = 4
    largest: int = 5
    """Numbers of a puzzle are 1 to this."""
    targets: int = 12
    most: int = 15
    """Largest value of an attempt."""
    attempts: int = 4
    """Most attempts of a text."""
    hit: float = 0.3
    """Probability that an attempt of a training text works."""
    sft_steps: int = 500
    sft_rows: int = 48
    sft_rate: float = 5e-3
    searched: float = 0.25
    """Share of training texts in whose loss the expressions count. They are random, so that their loss is noise beside calculations and
    verdicts."""
    sft_checkpoints: int = 12
    rounds: int = 50
    """Of GRPO; each samples anew."""
    prompts: int = 16
    """Puzzles of a round."""
    group: int = 8
    """Answers to each."""
    updates: int = 2
    rl_rate: float = 3e-4
    beta: float = 0.01
    answered: float = 0.1
    """Reward of a wrong answer; a right one has 1."""
    near: float = 0.1
    """Largest reward beyond it for an answer close to the target."""
    rl_checkpoints: int = 5
    groups: int = 24
    """Groups of four verdict prefixes for each number of earlier attempts."""
    generated: int = 128
    """Texts of test puzzles that are generated at each checkpoint; twice as many before and after GRPO."""
    units: int = 8
    """Value vectors of each of the later layers that are ablated."""
    pooled: int = 16
    """Value vectors of all layers for the OV score."""
    sets: int = 100
    """Random sets of heads, and of neurons."""


CHOSEN_HEADS = 3
"""Verification heads: those with the largest OV scores."""
LEAST_MASS = 0.1
"""Attention to the target above which a head attends to it."""
