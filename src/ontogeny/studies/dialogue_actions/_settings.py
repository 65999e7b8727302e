"""Settings of the study of dialogue action tokens, and the names of what it compares."""

from dataclasses import dataclass

NATIVE, RANDOM, ANY_ACTION, CLONED, STEERED, EXCHANGED = (
    "native",
    "random prefix",
    "random actions",
    "self-cloned",
    "TD3+BC",
    "exchanged actions",
)
NULL_PAYOFFS, NULL_TWICE, NULL_WORD, NULL_SOFT, NULL_UNCLONED, NULL_EXCHANGED = (
    "exchanged_payoffs",
    "random_twice",
    "one_word_changed",
    "soft_hint",
    "two_uncloned",
    "exchanged_twice",
)


@dataclass(frozen=True)
class Settings:
    steps: int = 800
    """Of training the language model."""
    rows: int = 32
    """Games of a step."""
    width: int = 64
    layers: int = 2
    action: int = 8
    """Dimensions of an action."""
    prefix: int = 2
    """Vectors of a prefix."""
    cloned_games: int = 800
    """Games of the model alone, for self-cloning."""
    cloning_steps: int = 150
    explored: int = 3000
    """Games with random actions, and as many with noise on the self-cloned planner's."""
    noise: float = 0.5
    """Standard deviation of that noise in each dimension, in lengths of an action."""
    updates: int = 1500
    batch: int = 256
    alpha: float = 25.0
    """Weight of the value against the pull towards the explored actions."""
    planner_rate: float = 3e-4
    critic_rate: float = 1e-3
    evaluations: int = 5
    """Points of the curve over updates."""
    games: int = 1500
    """Played by each policy, the same for all."""
    mapped: int = 60
    """First-round actions of this many games in the map by outcome."""


PAYOFF_MARGIN, LOSS_MARGIN, VALID_MARGIN = 0.03, 0.1, 0.05
"""Largest difference from the model alone: in payoff after self-cloning, in nats per token, and in valid utterances."""
