"""Train a language model on typed sentences and measure it on the way, beside the pairs that its rows have shown."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray

from ontogeny.statistics.percolation import connected_share, largest_component_share
from ontogeny.studies.percolation._answers import answer_tasks
from ontogeny.studies.percolation._panel import Measured, Panel
from ontogeny.studies.percolation._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import sqrt_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.toy_models.in_world import small_decoder
from ontogeny.worlds import typed_sentences as typed


def train_and_measure(settings: Settings, config: typed.Config, seed: int, *, whole: bool) -> Iterator[Measured]:
    """Numbers at every measured step of one run.

    Args:
        whole: Whether minimal pairs are compared as well, and prompts answered at every second measured step.
    """
    world = typed.make(config)
    revealed = np.zeros_like(world.seen)

    make = small_decoder(len(world.vocabulary), config.context, layers=settings.layers, heads=2, width=settings.width)

    def batches(step: int) -> TokenBatch:
        rows = typed.sample(world, np.random.default_rng([seed, step]), settings.rows)
        reveal_pairs(world, rows, revealed)
        return TokenBatch(torch.from_numpy(rows))

    training = TrainingConfig(
        settings.steps, settings.rate, warmup=min(30, settings.steps), floor=1.0, weight_decay=1e-4
    )
    panel = Panel.draw(settings, world)
    marks = sorted({0, *sqrt_steps(settings.steps, settings.measured)})
    answered = {*marks[::2], marks[-1]}
    for session in training_sessions(TrainingRecipe(make, batches, language_model, training, seed)):
        if session.step in marks:
            yield from _stream_numbers(world, revealed, session.step)
            yield from panel.measure(session.network, session.step, minimal_pairs=whole)
            if whole and session.step in answered:
                yield from answer_tasks(session.network, world, panel.tasks, session.step)


def reveal_pairs(world: typed.World, rows: Int[NDArray[np.int64], "row token"], revealed: NDArray[np.bool_]) -> None:
    """Mark the pairs that rows of text state in the form `X is value`; scrambled words that look like it are not pairs of the world."""
    entity = np.isin(rows[:, :-2], world.entities) & np.isin(rows[:, 1:-1], world.ids("is", "has"))
    row, column = np.nonzero(entity & np.isin(rows[:, 2:], world.values))
    pair = rows[row, column] - world.entities[0], rows[row, column + 2] - world.values[0]
    revealed[pair] |= world.seen[pair]


def _stream_numbers(world: typed.World, revealed: NDArray[np.bool_], step: int) -> Iterator[Measured]:
    """Percolation of the pairs that training has shown so far."""
    table = np.where(revealed, 2, world.valid & ~world.seen)
    n = int((table == 1).sum())
    yield Measured("revealed_pairs", step, float(revealed.sum()), 1)
    yield Measured("connected_share", step, connected_share(table), n)
    yield Measured("largest_component", step, largest_component_share(revealed), 1)
