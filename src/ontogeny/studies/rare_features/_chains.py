"""Cyclic Markov chains over one vocabulary: each chain and start state gives one sequence, a feature of its text (arXiv:2505.04741)."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput


@dataclass(frozen=True, eq=False)
class Chains:
    """All sequences, the rare chain's first."""

    ids: Int[Tensor, "sequence token"]
    states: int

    @property
    def rare(self) -> int:
        """Number of sequences of the rare chain."""
        return self.states


def draw_chains(count: int, states: int, length: int, seed: int) -> Chains:
    """Different cycles through all states, drawn with a seed.

    Raises:
        BadInput: fewer cycles exist.
    """
    if count > math.factorial(states - 1):
        raise BadInput(
            f"`chains` must be at most {math.factorial(states - 1)}, the cycles of {states} states, got {count}."
        )
    cycles = [(0, *rest) for rest in itertools.permutations(range(1, states))]
    chosen = np.random.default_rng([seed, 30]).permutation(len(cycles))[:count]
    rows = [
        [cycles[i][(start + t) % states] for t in range(length)] for i in chosen.tolist() for start in range(states)
    ]
    return Chains(torch.tensor(rows), states)


def sequence_weights(chains: Chains, ratios: Float[Tensor, " model"]) -> Float[Tensor, "model sequence"]:
    """Probability of each sequence where the first chain has a frequency relative to each of the others."""
    weights = torch.ones(len(ratios), len(chains.ids))
    weights[:, : chains.rare] = ratios[:, None]
    return weights / weights.sum(1, keepdim=True)


def batch_counts(
    weights: Float[Tensor, "model sequence"], batch: int, step: int, seed: int
) -> Float[Tensor, "model sequence"]:
    """How often each sequence occurs in each model's batch of a step: all models draw with the same random numbers."""
    drawn = torch.from_numpy(np.random.default_rng([seed, 31, step]).random(batch)).float()
    own = torch.searchsorted(weights.cumsum(1), drawn.expand(len(weights), -1).contiguous()).clamp(
        max=weights.shape[1] - 1
    )
    return torch.zeros_like(weights).scatter_add_(1, own, torch.ones_like(own, dtype=weights.dtype))
