"""Training of the study's decoders on walks, and the bench of a trained one."""

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ontogeny.editing import key_second_moments
from ontogeny.models.model import Model
from ontogeny.studies.knowledge_editing._edits import Bench
from ontogeny.studies.knowledge_editing._panel import Panel, read_panel
from ontogeny.studies.knowledge_editing._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import language_model
from ontogeny.worlds import entity_graph


def recipe(world: entity_graph.World, settings: Settings, steps: int, seed: int) -> TrainingRecipe:
    """The training of a decoder of two blocks on the walks of a world."""
    config = GPT2Config(
        vocab_size=len(world.vocabulary), n_positions=world.config.context, n_embd=settings.width, n_layer=2, n_head=settings.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=settings.spread, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip

    def batches(step: int) -> TokenBatch:
        return TokenBatch(
            torch.from_numpy(entity_graph.sample(world, np.random.default_rng([seed, 2, step]), settings.batch))
        )

    training = TrainingConfig(steps, settings.rate, weight_decay=settings.decay)
    return TrainingRecipe(lambda: GPT2LMHeadModel(config), batches, language_model, training, seed)


def make_bench(model: Model, panel: Panel, settings: Settings, seed: int) -> Bench:
    """The model with the second moments of its keys on walks, and its answers before any edit."""
    walks = entity_graph.sample(panel.world, np.random.default_rng([seed, 3]), 256)
    moments = key_second_moments(model, [torch.from_numpy(row) for row in walks], [settings.layer], batch=256)
    return Bench(model, panel, moments, read_panel(model, panel), settings)
