"""The course of one model: supervised fine-tuning on texts of CountDown, then GRPO with an exact reward."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model, model_from_network
from ontogeny.studies.self_verification._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.checkpoint_schedule import every_k_steps, sqrt_steps
from ontogeny.training.grpo import GrpoConfig, GrpoRound, grpo_rounds
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import answers_only
from ontogeny.training.toy_models.in_world import small_decoder
from ontogeny.training.train import initial_language_model
from ontogeny.worlds import countdown


@dataclass(frozen=True, eq=False)
class SavedModel:
    """The weights after a step."""

    stage: str
    step: int
    weights: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class TrainedModels:
    """The checkpoints of one course of training."""

    world: countdown.World
    empty: nn.Module
    saved: tuple[SavedModel, ...]
    rounds: tuple[GrpoRound, ...]

    def model(self, saved: SavedModel) -> Model:
        """The model of a checkpoint; it is one object, so that the one before is gone."""
        self.empty.load_state_dict(saved.weights)
        return model_from_network(self.empty.eval(), countdown.tokenizer(self.world))

    def last(self, stage: str) -> SavedModel:
        """The last checkpoint of a stage."""
        return [one for one in self.saved if one.stage == stage][-1]

    def fresh(self, seed: int) -> Model:
        """Another untrained model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1_000_003)
            network = initial_language_model(self.empty.config)
        return model_from_network(network.eval(), countdown.tokenizer(self.world))

    @property
    def untrained(self) -> SavedModel:
        return self.saved[0]


def make_world(settings: Settings, seed: int) -> countdown.World:
    return countdown.make(
        countdown.Config(
            largest=settings.largest,
            targets=settings.targets,
            most=settings.most,
            attempts=settings.attempts,
            hit=settings.hit,
            context=countdown.longest_text(settings.attempts) + 1,
            seed=seed,
        )
    )


def train_models(settings: Settings, lab: Lab, world: countdown.World) -> TrainedModels:
    """Both stages, with checkpoints in memory."""
    saved: list[SavedModel] = []
    marks = every_k_steps(settings.sft_steps, max(1, settings.sft_steps // settings.sft_checkpoints))
    for session in training_sessions(_sft_recipe(settings, lab.seed, world)):
        if session.step % 25 == 0:
            lab.on_activity("supervised fine-tuning", session.step, settings.sft_steps)
        if session.step in marks:
            saved.append(_save("sft", session.step, session.network))
    network = session.network
    empty, rounds = copy.deepcopy(network), []
    marks = sqrt_steps(settings.rounds, settings.rl_checkpoints + 1)
    for one in reinforce(settings, lab, world, network):
        rounds.append(replace(one, network=empty))
        if one.number in marks or one.stopped:
            saved.append(_save("grpo", settings.sft_steps + one.number * settings.updates, network))
    return TrainedModels(world, empty, tuple(saved), tuple(rounds))


def reinforce(
    settings: Settings,
    lab: Lab,
    world: countdown.World,
    network: nn.Module,
    *,
    name: str = "GRPO",
    partial: bool = True,
    shuffled: bool = False,
) -> Iterator[GrpoRound]:
    """GRPO on training puzzles.

    Args:
        partial: Whether wrong answers have partial credit.
        shuffled: Whether rewards are shuffled over the answers of a round, as the null.
    """
    rng = np.random.default_rng([lab.seed, 5])
    answered, near = (settings.answered, settings.near) if partial else (0.0, 0.0)
    config = GrpoConfig(
        settings.rounds,
        group=settings.group,
        new_tokens=longest_answer(world),
        updates=settings.updates,
        stop=end_token(world),
        beta=settings.beta,
        learning_rate=settings.rl_rate,
    )

    def prompts(number: int) -> TokenBatch:
        lab.on_activity(name, number, settings.rounds)
        drawn = np.random.default_rng([lab.seed, 3, number])
        return TokenBatch(torch.from_numpy(countdown.prompts(world, drawn, settings.prompts)))

    def reward(rollouts: TokenBatch) -> Tensor:
        rewards = countdown.reward(world, rollouts.ids.numpy(), answered=answered, near=near)
        return torch.from_numpy(rng.permutation(rewards) if shuffled else rewards).float()

    return grpo_rounds(network, prompts, reward, config, seed=lab.seed + 77)


def longest_answer(world: countdown.World) -> int:
    """Tokens after the prompt of the longest text."""
    return countdown.longest_text(world.config.attempts) - countdown.PROMPT_TOKENS


def end_token(world: countdown.World) -> int:
    return world.vocabulary["</s>"]


def _sft_recipe(settings: Settings, seed: int, world: countdown.World) -> TrainingRecipe:

    make = small_decoder(
        len(world.vocabulary),
        world.config.context,
        layers=settings.layers,
        heads=settings.heads,
        width=settings.width,
        family="llama",
    )

    def batches(step: int) -> TokenBatch:
        rng = np.random.default_rng([seed, 1, step])
        drawn = countdown.texts(world, rng, settings.sft_rows)
        width = int(drawn.lengths.max())
        mask = drawn.mask[:, :width] & ~(
            _expressions(width) & (rng.random(settings.sft_rows) >= settings.searched)[:, None]
        )
        real = np.arange(width) < drawn.lengths[:, None]
        return TokenBatch(*(torch.from_numpy(part) for part in (drawn.ids[:, :width], mask, real)))

    config = TrainingConfig(
        settings.sft_steps, settings.sft_rate, warmup=max(1, settings.sft_steps // 20), weight_decay=0.0
    )
    return TrainingRecipe(make, batches, answers_only, config, seed)


def _expressions(width: int) -> np.ndarray:
    """True at the expressions that attempts begin with."""
    place = np.arange(width) - countdown.PROMPT_TOKENS
    return (place >= 0) & (place % countdown.ATTEMPT_TOKENS < countdown.EXPRESSION_TOKENS)


def _save(stage: str, step: int, network: nn.Module) -> SavedModel:
    return SavedModel(stage, step, {name: value.detach().clone() for name, value in network.state_dict().items()})
