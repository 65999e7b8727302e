"""The small models of the study, at some steps of their training: embeddings, hidden states and the network at the end."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ontogeny.embeddings.hidden_states import TokenPlaces, hidden_states
from ontogeny.embeddings.model_geometry import GeometrySettings, ModelGeometry, model_geometry
from ontogeny.embeddings.tokens import ComparedTokens
from ontogeny.models.model import Model, model_from_network
from ontogeny.studies.embedding_geometry._language import ClassLanguage, make_tokenizer, sample_rows
from ontogeny.studies.embedding_geometry._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import log_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.toy_models.in_world import ToyModelSize, build_network

_TEXT_ROWS = 2000
"""Rows of text that are drawn once, from which batches are picked."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model at its measured steps."""

    steps: tuple[int, ...]
    geometries: tuple[ModelGeometry, ...]
    first: Model
    """At step 0."""
    last: Model


def geometry_settings(settings: Settings) -> GeometrySettings:
    return GeometrySettings(
        tokens=settings.words,
        local_tokens=settings.words,
        neighbours=settings.neighbours,
        dimension_neighbours=settings.dimension_neighbours,
        nulls=10,
    )


def compared_tokens(language: ClassLanguage, seed: int) -> ComparedTokens:
    """All words in random order, with their frequencies in the language."""
    order = np.random.default_rng([seed, 2]).permutation(language.words)
    names = tuple(f"w{word}" for word in order)
    return ComparedTokens(torch.tensor(order + 2), names, torch.tensor(np.log(language.weight[order])).float(), "texts")


def hidden_places(language: ClassLanguage, tokens: ComparedTokens, settings: Settings, seed: int) -> TokenPlaces:
    """One place of each of the words that occur in some rows of text, not the first word of its row."""
    rows = sample_rows(language, np.random.default_rng([seed, 3]), 60, settings.context)
    index = {number: i for i, number in enumerate(tokens.ids.tolist())}
    places, chosen = [], []
    for row, ids in enumerate(rows.tolist()):
        for position, number in enumerate(ids):
            if position > 1 and number in index:
                places.append((row, position))
                chosen.append(index.pop(number))
    return TokenPlaces(tuple(map(tuple, rows.tolist())), tuple(places), torch.tensor(chosen))


def train_model(
    language: ClassLanguage, width: int, settings: Settings, tokens: ComparedTokens, places: TokenPlaces, *, seed: int
) -> TrainedModel:
    """Train a model on the language, and read its geometry at log-spaced steps from 0 on."""
    tokenizer = make_tokenizer(language.words)
    text = torch.tensor(sample_rows(language, np.random.default_rng([seed, 4]), _TEXT_ROWS, settings.context))
    size = ToyModelSize({}, layers=settings.layers, heads=2, width=width)
    config = build_network(size, len(tokenizer), settings.context)

    def make() -> nn.Module:
        network: nn.Module = AutoModelForCausalLM.from_config(config)
        return network

    def batches(step: int) -> TokenBatch:
        return TokenBatch(text[np.random.default_rng([seed, 5, step]).integers(len(text), size=settings.rows)])

    training = TrainingConfig(settings.steps, settings.rate, warmup=20)
    marks = {0, *log_steps(settings.steps, settings.measured, first=8)}
    read, steps, first = [], [], None
    for session in training_sessions(TrainingRecipe(make, batches, language_model, training, seed)):
        if session.step not in marks:
            continue
        model = model_from_network(session.network.eval(), tokenizer)
        read.append(model_geometry(model, tokens, places, geometry_settings(settings)))
        steps.append(session.step)
        if first is None:
            first = model_from_network(copy.deepcopy(session.network), tokenizer)
        session.network.train()
    assert first is not None
    session.network.eval()
    return TrainedModel(tuple(steps), tuple(read), first, model)


def class_states(
    model: Model, language: ClassLanguage, layer: int, context: int, rows: int, seed: int
) -> Iterator[Tensor]:
    """States at the last word of rows of the first topic, then of the second."""

    for topic in (0, 1):
        ids = sample_rows(language, np.random.default_rng([seed, 6, topic]), rows, context, topic)
        sequences = tuple(map(tuple, ids.tolist()))
        places = TokenPlaces(sequences, tuple((row, context - 1) for row in range(rows)), torch.arange(rows))
        yield hidden_states(model, places)[layer]
