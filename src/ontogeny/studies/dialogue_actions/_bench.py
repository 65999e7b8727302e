"""The course of one seed: a language model of the game, a self-cloned planner, explored games, and planners from offline learning."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ontogeny.dialogues.action_tokens import ActionConfig, ActionPlanner, PrefixMap, prefixed_logits
from ontogeny.dialogues.self_cloning import CloningConfig, clone_self, divergence
from ontogeny.dialogues.td3_bc import Td3Config, Transitions, join_transitions, train_planner
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model, model_from_network
from ontogeny.studies.dialogue_actions._game import Played, Policy, play
from ontogeny.studies.dialogue_actions._policies import planned, random_actions
from ontogeny.studies.dialogue_actions._settings import Settings
from ontogeny.training.batches import TokenBatch
from ontogeny.training.in_memory import train_in_memory
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.training.objectives.language_model import language_model
from ontogeny.training.toy_models.in_world import small_decoder
from ontogeny.worlds import negotiation

CurvePoint = Callable[[int, ActionPlanner], None]
"""Called with an update and the planner as it is then."""


@dataclass(frozen=True, eq=False)
class Planners:
    """A frozen model, and planners with a common prefix map."""

    uncloned: ActionPlanner
    uncloned_map: PrefixMap
    cloned: ActionPlanner
    prefix_map: PrefixMap


class Bench:
    """A trained language model of the game."""

    def __init__(self, settings: Settings, lab: Lab) -> None:
        self.settings, self.lab = settings, lab
        self.world = negotiation.make(negotiation.Config(seed=lab.seed))
        self.model = train_speaker(settings, lab, self.world)
        self.games = self.start(1, settings.games)

    def start(self, purpose: int, count: int) -> negotiation.Games:
        """New games; another purpose has other ones."""
        return negotiation.start_games(self.world, np.random.default_rng([self.lab.seed, 7, purpose]), count)

    def play(self, policy: Policy | None, *, seed: int = 0, games: negotiation.Games | None = None) -> Played:
        """The games of the evaluation, or others, under a policy."""
        return play(self.model, self.world, games or self.games, policy, 1000 * self.lab.seed + seed)

    def config(self) -> ActionConfig:
        """Sizes of planner and prefix."""
        return ActionConfig(self.settings.action, self.settings.prefix, width=self.settings.width)

    def new_planner(self, states: Tensor, seed: int) -> tuple[ActionPlanner, PrefixMap]:
        """An untrained planner and map."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            planner = ActionPlanner(states, self.config())
        return planner, PrefixMap(self.model, self.config(), seed)

    def clone(self) -> Planners:
        """Self-cloning on games of the model alone."""
        settings, lab = self.settings, self.lab
        own = self.play(None, seed=11, games=self.start(2, settings.cloned_games))
        states = own.pooled_states()
        before, after = (self.new_planner(states, lab.seed) for _ in range(2))

        def on_step(step: int, loss: float) -> None:
            if step % 25 == 0:
                lab.on_activity("self-cloning", step, settings.cloning_steps)

        config = CloningConfig(settings.cloning_steps, seed=lab.seed)
        clone_self(self.model, *after, [one.said for one in own.rounds], config, on_step)
        return Planners(*before, *after)

    def explore(self, planners: Planners) -> tuple[Transitions, Transitions]:
        """Turns of games with random actions and with noise on the planner's; and the same with payoffs exchanged between games."""
        self.lab.on_activity("exploring", 0, 1)
        pair = planners.cloned, planners.prefix_map
        parts, nulls = [], []
        for place, policy in enumerate((random_actions(*pair), planned(*pair, noise=self.settings.noise))):
            played = self.play(policy, seed=21 + place, games=self.start(3 + place, self.settings.explored))
            payoff = played.payoff
            parts.append(played.transitions(payoff))
            order = torch.randperm(len(payoff), generator=torch.Generator().manual_seed(self.lab.seed))
            nulls.append(played.transitions(payoff[order]))
        return join_transitions(parts), join_transitions(nulls)

    def learn(self, planner: ActionPlanner, data: Transitions, on_point: CurvePoint, name: str) -> ActionPlanner:
        """TD3+BC from the self-cloned planner; `on_point` gets evenly spaced updates, the last among them."""
        settings = self.settings
        marks = set(np.linspace(0, settings.updates, settings.evaluations + 1).round().astype(int)[1:].tolist())

        def on_update(update: int, actor: ActionPlanner, loss: float) -> None:
            if update % 100 == 0:
                self.lab.on_activity(name, update, settings.updates)
            if update in marks:
                on_point(update, actor)

        config = Td3Config(
            settings.updates,
            settings.batch,
            alpha=settings.alpha,
            planner_rate=settings.planner_rate,
            critic_rate=settings.critic_rate,
            seed=self.lab.seed,
        )
        return train_planner(planner, data, config, on_update)

    def divergence(self, planner: ActionPlanner, prefix_map: PrefixMap, own: Played) -> float:
        """Mean divergence of the prefixed model from the model alone over what it said alone, nats per token."""
        total, count = 0.0, 0
        for one in own.rounds:
            for ids, states in zip(one.said.ids.split(512), one.said.states.split(512), strict=True):
                with torch.no_grad():
                    alone = prefixed_logits(self.model, ids, None, last=one.said.length)
                    prefixed = prefixed_logits(self.model, ids, prefix_map(planner(states)), last=one.said.length)
                total, count = total + float(divergence(alone, prefixed).sum()), count + alone[..., 0].numel()
        return total / count


def train_speaker(settings: Settings, lab: Lab, world: negotiation.World) -> Model:
    """A language model of the game's texts, frozen afterwards."""
    words = negotiation.tokenizer(world)

    make = small_decoder(len(words), world.config.context, layers=settings.layers, heads=4, width=settings.width)

    def batches(step: int) -> TokenBatch:
        ids, lengths = negotiation.texts(world, np.random.default_rng([lab.seed, step]), settings.rows)
        width = int(lengths.max())
        real = np.arange(width) < lengths[:, None]
        return TokenBatch(torch.from_numpy(ids[:, :width]), None, torch.from_numpy(real))

    recipe = TrainingRecipe(make, batches, language_model, TrainingConfig(settings.steps, 3e-3), lab.seed)

    def on_step(step: int) -> None:
        if step % 50 == 0:
            lab.on_activity("training the language model", step, settings.steps)

    return model_from_network(train_in_memory(recipe, on_step).eval().requires_grad_(False), words)
