"""Policies that the study compares: a planner, random actions, random prefixes, a fixed prefix, actions exchanged between dialogues."""

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dialogues.action_tokens import ActionPlanner, PrefixMap, to_sphere
from ontogeny.studies.dialogue_actions._game import Policy


def planned(planner: ActionPlanner, prefix_map: PrefixMap, *, noise: float = 0.0, shuffled: bool = False) -> Policy:
    """The planner's actions.

    Args:
        noise: Standard deviation in each dimension, in lengths of an action; actions keep their length.
        shuffled: Whether the actions of a round are exchanged at random between its dialogues.
    """

    @torch.no_grad()
    def policy(states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        actions = planner(states)
        if noise:
            drawn = torch.randn(actions.shape, generator=generator)
            actions = to_sphere(actions + noise * planner.norm * drawn, planner.norm)
        if shuffled:
            actions = actions[torch.randperm(len(actions), generator=generator)]
        return actions, prefix_map(actions)

    return policy


def random_actions(planner: ActionPlanner, prefix_map: PrefixMap) -> Policy:
    """Actions in random directions."""
    dimensions = prefix_map.weight.shape[0]

    @torch.no_grad()
    def policy(states: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        actions = to_sphere(torch.randn(len(states), dimensions, generator=generator), planner.norm)
        return actions, prefix_map(actions)

    return policy


def random_prefixes(lengths: Float[Tensor, " prefix"], d: int) -> Policy:
    """Prefix vectors in random directions of the embedding space.

    Args:
        lengths: Of each vector of the prefix.
        d: Size of an embedding.
    """

    def policy(states: Tensor, generator: torch.Generator) -> tuple[None, Tensor]:
        drawn = torch.randn(len(states), len(lengths), d, generator=generator)
        return None, torch.nn.functional.normalize(drawn, dim=-1) * lengths[:, None]

    return policy


def fixed_prefix(vectors: Float[Tensor, "prefix d"]) -> Policy:
    """One prefix for all dialogues."""
    return lambda states, generator: (None, vectors.expand(len(states), -1, -1))
