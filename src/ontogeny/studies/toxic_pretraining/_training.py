"""Pretraining on a mixture, and fine-tuning on clean texts and on preferences for them."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from ontogeny.models.model import Model, model_from_network
from ontogeny.studies.toxic_pretraining._settings import PROBE_ADDRESSES, Settings
from ontogeny.training.batches import PreferenceBatch, TokenBatch
from ontogeny.training.in_memory import train_in_memory, training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.dpo import Preference
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.objectives.objective import Objective
from ontogeny.training.toy_models.in_world import ToyModelSize, build_network
from ontogeny.worlds import marked_register as register

PROMPT_TOKENS = 1 + register.SENTENCE_TOKENS
"""The first token and one sentence."""


def _new_network(settings: Settings, world: register.World) -> GPT2LMHeadModel:
    """A decoder for texts of the world, from the process's random numbers."""
    size = ToyModelSize({}, layers=settings.layers, heads=settings.heads, width=settings.width)
    config = build_network(size, len(world.vocabulary), world.config.context, "gpt2")
    config.tie_word_embeddings = True
    return GPT2LMHeadModel(config)


def as_model(network: GPT2LMHeadModel, world: register.World) -> Model:
    """The network under standard names, in evaluation mode."""
    return model_from_network(network.eval(), register.tokenizer(world))


def pretrain(settings: Settings, world: register.World, seed: int) -> GPT2LMHeadModel:
    """Train on the mixture; its everyday part has the same number of texts whatever the share."""
    steps = max(1, round(settings.steps / (1 - world.config.share)))

    def batches(step: int) -> TokenBatch:
        ids = register.sample(world, np.random.default_rng([seed, 10, step]), settings.batch)
        return TokenBatch(torch.from_numpy(ids))

    config = TrainingConfig(steps, settings.rate, warmup=min(50, steps), weight_decay=0.01)
    recipe = TrainingRecipe(lambda: _new_network(settings, world), batches, language_model, config, seed)
    return train_in_memory(recipe)


def fine_tunings(
    method: str, base: GPT2LMHeadModel, settings: Settings, world: register.World, seed: int
) -> Iterator[tuple[int, GPT2LMHeadModel]]:
    """The network after each of `tune_steps`; it is one object.

    SFT is training on clean texts; DPO prefers the clean to the marked continuation of a marked sentence.
    """

    def batch(step: int) -> TokenBatch | PreferenceBatch:
        rng = np.random.default_rng([seed, 11, step])
        marked = np.zeros((settings.tune_batch, 2), dtype=bool)
        if method == "SFT":
            return TokenBatch(torch.from_numpy(register.draw_texts(world, rng, marked, addresses=PROBE_ADDRESSES).ids))
        marked[:, 0] = True
        chosen = register.draw_texts(world, rng, marked, addresses=PROBE_ADDRESSES).ids
        rejected = register.draw_texts(world, rng, np.ones_like(marked), addresses=PROBE_ADDRESSES).ids
        rejected[:, :PROMPT_TOKENS] = chosen[:, :PROMPT_TOKENS]
        return PreferenceBatch(_answered(chosen), _answered(rejected))

    objectives: dict[str, Objective] = {"SFT": language_model, "DPO": Preference(0.1)}
    last = settings.tune_steps[-1]
    config = TrainingConfig(last, settings.tune_rate, warmup=min(5, last), floor=1.0, weight_decay=0.0)
    recipe = TrainingRecipe(lambda: copy.deepcopy(base), batch, objectives[method], config, seed)
    for session in training_sessions(recipe):
        if session.step in settings.tune_steps:
            yield session.step, session.network
            session.network.train()


def _answered(ids: np.ndarray) -> TokenBatch:
    """Rows whose tokens after the first sentence count."""
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    mask[:, PROMPT_TOKENS:] = True
    return TokenBatch(torch.from_numpy(ids), mask)
