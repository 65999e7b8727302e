"""A small GPT that learns what can be known in returning phrases and ruled rows: queries and keys of every head at checkpoints."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.activations.attention_vectors import AttentionVectors, batch_attention_vectors
from ontogeny.models.model import model_from_network
from ontogeny.studies.attention_geometry._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import log_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import answers_only
from ontogeny.training.toy_models.in_world import ToyModelSize, build_network
from ontogeny.training.train import initial_language_model
from ontogeny.worlds import returning_phrases as phrases

MANY_PHRASES, ONE_PHRASE = LANGUAGES = ("many phrases", "one phrase")
"""Phrases in random order, with ruled rows: the words are needed. One phrase, again and again: the position is enough."""


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """Queries and keys of some texts at a checkpoint."""

    step: int
    ids: Int[Tensor, "text token"]
    vectors: list[AttentionVectors]
    accuracy: float
    """Share of the returning words that are predicted."""


def read_while_training(settings: Settings, language: str, seed: int) -> Iterator[ReadTexts]:
    """The texts of a language at each measured checkpoint.

    Args:
        language: Name in `LANGUAGES`.
    """
    config = phrases.Config(words=settings.words, length=settings.length, examples=settings.texts, seed=seed)
    if language == ONE_PHRASE:
        config = replace(config, phrases=1, shortest=5, longest=10, ruled=0.0)
    world = phrases.make(config)
    tokenizer, batch = phrases.named_tokens(world), phrases.evaluation(world)["returning"]
    size = ToyModelSize({}, layers=settings.layers, heads=settings.heads, width=settings.width)
    network = build_network(size, len(tokenizer), settings.length, "gpt2")

    def batches(step: int) -> TokenBatch:
        rng = np.random.default_rng([seed, 30, step])
        drawn = phrases.sample(world, rng, settings.rows)
        ids = np.concatenate([drawn.inputs, drawn.targets[:, -1:].astype(np.int64)], 1)
        known = np.concatenate([np.zeros((len(ids), 1), dtype=bool), drawn.coordinates["known"]], 1)
        return TokenBatch(torch.from_numpy(ids), torch.from_numpy(known))

    training = TrainingConfig(settings.steps, settings.rate, weight_decay=0.01)
    recipe = TrainingRecipe(lambda: initial_language_model(network), batches, answers_only, training, seed)
    saved = log_steps(settings.steps, settings.measured, first=max(1, settings.steps // 20))
    ids = torch.from_numpy(batch.inputs)
    for session in training_sessions(recipe):
        if session.step in saved:
            model = model_from_network(session.network.eval(), tokenizer)
            with torch.no_grad():
                guess = session.network(ids).logits.argmax(-1).double().numpy()
            right = float(phrases.score(world, guess, batch)["accuracy"].mean())
            yield ReadTexts(session.step, ids, batch_attention_vectors(model, ids), right)
            session.network.train()
