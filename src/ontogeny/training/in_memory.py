"""Training in memory, for small networks whose measurements need every step: nothing is written, the recipe decides the weights."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from ontogeny.training.loop import TrainingRecipe, TrainingSession, start_session, train_step


def training_sessions(recipe: TrainingRecipe) -> Iterator[TrainingSession]:
    """The session at step 0 and after each step; it is one object, so measure it before the next step.

    The process's random numbers are restored at the end.

    Raises:
        BadInput: the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        session = start_session(recipe)
        yield session
        while session.step < recipe.config.steps:
            train_step(session, recipe, recipe.batches(session.step + 1))
            yield session


def train_in_memory(recipe: TrainingRecipe, on_step: Callable[[int], None] = lambda step: None) -> nn.Module:
    """The network after the last step, in training mode.

    Args:
        on_step: Called with each step, from 0 on.

    Raises:
        BadInput: the loss is not finite.
    """
    for session in training_sessions(recipe):
        on_step(session.step)
    return session.network
