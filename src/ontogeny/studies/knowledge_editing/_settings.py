"""Settings of the study of knowledge editing."""

from dataclasses import dataclass

from ontogeny.editing.nulls import NULL_KINDS as NULLS

__all__ = ["DISTANCES", "METHODS", "NULLS", "ROLES", "TREE_METHODS", "Settings"]

DISTANCES = (1, 2, 3, 4)
METHODS = ("rome", "memit", "alphaedit", "pmet", "unbounded")
"""The four editors, and ROME without its bounds: no early stop, hardly a limit to the value, and the second moment almost an identity."""
TREE_METHODS = ("rome", "unbounded")
ROLES = ("edit", "retain", "test")
"""Orders I, II and III: facts of the first are edited, all are measured."""


@dataclass(frozen=True)
class Settings:
    shape: str = "ring"
    """ring or tree."""
    entities: int = 20
    hops: int = 4
    width: int = 24
    heads: int = 4
    steps: int = 2400
    rate: float = 0.006
    batch: int = 64
    decay: float = 0.3
    spread: float = 0.2
    """Standard deviation of the initial weights."""
    composed: float = 0.3
    layer: int = 1
    """Block whose MLP is edited, from 1."""
    site: int = 1
    """Representations are the stream after this block."""
    facts: int = 3
    """Edited facts per distance, each alone."""
    contexts: int = 2
    """Contexts of each question."""
    pairs: int = 192
    """Hidden pairs of relations that are asked."""
    checkpoints: int = 9
    """Checkpoints at which facts are edited."""
    ridge: float = 1e-3
    descent: int = 40
    """Maximum number of steps of the gradient descent for a value."""
    loose_ridge: float = 10.0
    """Ridge of `unbounded`."""
    loose_bound: float = 30.0
    """Its largest value, as a multiple of the activation."""
    tree_entities: int = 20
    """Entities of the second model's trees."""
    tree_hops: int = 2
    tree_steps: int = 1000
