"""Pretraining in the world of operators, and the three methods of safety fine-tuning."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from ontogeny.models.model import Model, model_from_network
from ontogeny.studies.safety_fine_tuning._settings import Settings
from ontogeny.training.batches import PreferenceBatch, TokenBatch, UnlearningBatch
from ontogeny.training.in_memory import train_in_memory, training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe, TrainingSession
from ontogeny.training.objectives.dpo import Preference
from ontogeny.training.objectives.language_model import answers_only
from ontogeny.training.objectives.objective import Objective
from ontogeny.training.objectives.unlearning import Unlearn
from ontogeny.training.toy_models.in_world import ToyModelSize, build_network
from ontogeny.worlds import operators


def new_network(settings: Settings, world: operators.World) -> GPT2LMHeadModel:
    """A decoder for rows of the world, from the process's random numbers."""
    size = ToyModelSize({}, layers=settings.layers, heads=4, width=settings.width)
    return GPT2LMHeadModel(build_network(size, len(world.vocabulary), world.config.context, "gpt2"))


def as_model(network: GPT2LMHeadModel, world: operators.World) -> Model:
    """The network under standard names, in evaluation mode."""
    return model_from_network(network.eval(), operators.tokenizer(world))


def pretrain(settings: Settings, world: operators.World, seed: int) -> GPT2LMHeadModel:
    """Train on all operators and branches, nothing refused but the operator null."""

    def batches(step: int) -> TokenBatch:
        ids = operators.sample(world, np.random.default_rng([seed, 10, step]), settings.batch)
        return _answered(ids, world)

    config = TrainingConfig(settings.steps, settings.rate, warmup=min(50, settings.steps), weight_decay=0.01)
    recipe = TrainingRecipe(lambda: new_network(settings, world), batches, answers_only, config, seed)
    return train_in_memory(recipe)


@dataclass(frozen=True)
class FineTuning:
    """A method of fine-tuning with its learning rate."""

    method: str
    rate: float
    shuffled: bool = False
    """Whether refusals go to random prompts: the null run."""

    def sessions(
        self, base: GPT2LMHeadModel, settings: Settings, world: operators.World, seed: int
    ) -> Iterator[TrainingSession]:
        """The session at step 0 and after each step; it is one object."""
        objectives: dict[str, Objective] = {
            "SSFT": answers_only,
            "DPO": Preference(0.1, 0.01),
            "unlearning": Unlearn("ascent", forget=0.1),
        }
        config = TrainingConfig(
            settings.tune_steps, self.rate, warmup=max(1, settings.tune_steps // 5), floor=0.1, weight_decay=0.0
        )
        recipe = TrainingRecipe(
            lambda: copy.deepcopy(base), self._batches(settings, world, seed), objectives[self.method], config, seed
        )
        return training_sessions(recipe)

    def _batches(self, settings: Settings, world: operators.World, seed: int) -> Callable[[int], Any]:
        share = settings.unsafe_share if self.method == "SSFT" else 0.5

        def batch(step: int) -> Any:
            rng = np.random.default_rng([seed, 11, step])
            count = settings.tune_batch
            unsafe = round(share * count)
            drawn = [
                operators.prompts(world, rng, unsafe, "unsafe"),
                operators.prompts(world, rng, count - unsafe, "safe"),
            ]
            prompts = np.concatenate([part.ids for part in drawn])
            results = np.concatenate([part.results for part in drawn])
            refuse = np.arange(count) < unsafe
            if self.shuffled:
                refuse = rng.permutation(refuse)
            refusals = np.full_like(results, world.refusal)
            preferred, other = (
                _answered(np.concatenate([prompts, np.where(side[:, None], refusals, results)], axis=1), world)
                for side in (refuse, ~refuse)
            )
            if self.method == "SSFT":
                return preferred
            if self.method == "DPO":
                return PreferenceBatch(preferred, other)
            return UnlearningBatch(forget=other, retain=preferred)

        return batch


def _answered(ids: np.ndarray, world: operators.World) -> TokenBatch:
    """Rows whose results count in the loss."""
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    mask[:, -world.config.operand :] = True
    return TokenBatch(torch.from_numpy(ids), mask)


def measured_steps(last: int, count: int) -> set[int]:
    """At most `count` steps from 0 to the last one, spaced as squares."""
    return set(np.rint(np.linspace(0, last**0.5, count) ** 2).astype(int).tolist())
