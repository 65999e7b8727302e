"""The models of the tracing study: pretraining with activations at checkpoints, and fine-tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ontogeny.activations.activations import Activations
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model, model_from_network
from ontogeny.studies.tracing._claims import FAMILIES
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import sqrt_steps
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.toy_models.in_world import small_decoder
from ontogeny.worlds import nursery


@dataclass(frozen=True)
class Settings:
    steps: int = 400
    tuning: int = 60
    """Steps of fine-tuning."""
    checkpoints: int = 10
    rate: float = 3e-3
    rows: int = 16
    """Rows of text per step."""
    context: int = 36
    width: int = 64
    layers: int = 3
    families: int = 18
    """Families of people in the world."""
    potions: int = 20
    concepts: tuple[str, ...] = ("rudeness", "sentiment")
    alpha: float = 2.0
    """Length of a vector, in standard deviations of the projections."""
    averaged: int = 4
    """Last checkpoints of pretraining whose vectors are averaged."""
    controls: int = 5
    """Random vectors, and vectors fitted on permuted labels."""
    items: int = 24
    """Most questions on which a vector is tested."""
    mine_steps: int = 150


@dataclass(frozen=True)
class Snapshot:
    """Weights and activations of a checkpoint."""

    step: int
    weights: Mapping[str, Tensor]
    activations: Mapping[str, Activations]


def make_network(settings: Settings, world: nursery.World, family: str) -> PreTrainedModel:
    words, kind = len(nursery.tokenizer(world)), FAMILIES[family]
    return small_decoder(words, settings.context, layers=settings.layers, heads=4, width=settings.width, family=kind)()


def pretrain(
    settings: Settings, lab: Lab, world: nursery.World, family: str, concepts: Sequence[Concept]
) -> list[Snapshot]:
    tokenizer = nursery.tokenizer(world)
    config = TrainingConfig(settings.steps, settings.rate, warmup=min(30, settings.steps))

    def batches(step: int) -> TokenBatch:
        rng = np.random.default_rng([lab.seed, step])
        return TokenBatch(torch.from_numpy(nursery.sample(world, rng, settings.rows)))

    recipe = TrainingRecipe(lambda: make_network(settings, world, family), batches, language_model, config, lab.seed)
    wanted = sqrt_steps(settings.steps, settings.checkpoints, first=min(10, settings.steps // 2))
    snapshots = []
    for session in training_sessions(recipe):
        if session.step not in wanted:
            continue
        model = model_from_network(session.network.eval(), tokenizer)
        work, rows = build_workload([replace(c, answers=()) for c in concepts], tokenizer, model.context)
        captured = capture_workload(model, work, model.sites("resid"))
        weights = {name: tensor.detach().clone() for name, tensor in session.network.state_dict().items()}
        read = {c.name: Activations.of(replace(c, answers=()), captured, rows[c.name]) for c in concepts}
        snapshots.append(Snapshot(session.step, weights, read))
        session.network.train()
    return snapshots


def middle_layer(layers: int) -> int:
    """The block at two thirds of the depth."""
    return max(1, round(2 * layers / 3))


def fine_tune(settings: Settings, lab: Lab, world: nursery.World, weights: Mapping[str, Tensor]) -> Model:
    tokenizer = nursery.tokenizer(world)

    def make() -> PreTrainedModel:
        network = make_network(settings, world, "GPT-NeoX")
        network.load_state_dict(weights)
        return network

    def batches(step: int) -> TokenBatch:
        turns = nursery.instructions(world, np.random.default_rng([lab.seed, 1, step]), settings.rows)
        ids = torch.from_numpy(turns.ids)
        return TokenBatch(ids, torch.from_numpy(turns.mask), ids != tokenizer.pad_token_id)

    config = TrainingConfig(settings.tuning, settings.rate / 3, warmup=min(10, settings.tuning), weight_decay=0.0)
    *_, session = training_sessions(TrainingRecipe(make, batches, answers_only, config, lab.seed))
    return model_from_network(session.network.eval(), tokenizer)
