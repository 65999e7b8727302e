"""Games of a language model, alone or under the prefixes of a policy, with what was read, done and said in each round."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.dialogues.action_tokens import dialogue_states, prefixed_logits, sample_utterances
from ontogeny.dialogues.self_cloning import Utterances, utterance_loss
from ontogeny.dialogues.td3_bc import Transitions
from ontogeny.models.model import Model
from ontogeny.worlds import negotiation

Policy = Callable[[Tensor, torch.Generator], tuple[Tensor | None, Tensor | None]]
"""`(states, random numbers) -> (actions, prefixes)` for the dialogues of a round; None where there are none."""


@dataclass(frozen=True, eq=False)
class Round:
    """One round of the games that still run."""

    rows: Int[Tensor, " dialogue"]
    """Their places among all games."""
    said: Utterances
    actions: Float[Tensor, "dialogue action"] | None
    valid: Bool[Tensor, " dialogue"]
    """Whether the utterance is a sentence of the language."""
    taken: Int[Tensor, "dialogue kind"]
    """Items that the utterance asks for."""
    loss: Float[Tensor, " dialogue"]
    """Cross-entropy of the utterance under the model without a prefix, nats per token."""
    payoff: Float[Tensor, " dialogue"]
    over: Bool[Tensor, " dialogue"]
    agreed: Bool[Tensor, " dialogue"]


@dataclass(frozen=True, eq=False)
class Played:
    """Games from the first to the last round."""

    games: negotiation.Games
    rounds: tuple[Round, ...]

    @property
    def payoff(self) -> Float[Tensor, " game"]:
        """Payoff of each game."""
        total = torch.zeros(len(self.games))
        for one in self.rounds:
            total[one.rows] += one.payoff
        return total

    @property
    def agreed(self) -> Bool[Tensor, " game"]:
        """Whether each game ended with an agreement."""
        ends = torch.zeros(len(self.games), dtype=torch.bool)
        for one in self.rounds:
            ends[one.rows] = one.agreed
        return ends

    def pooled(self, name: str) -> Tensor:
        """A field of all rounds."""
        return torch.cat([getattr(one, name) for one in self.rounds])

    def transitions(self, payoff: Tensor) -> Transitions:
        """Turns for reinforcement learning; the payoff is the reward of a game's last turn."""
        states, actions = self.pooled_states(), self.pooled("actions")
        rows, over = self.pooled("rows"), self.pooled("over")
        following = torch.zeros_like(states)
        start = 0
        for one, after in zip(self.rounds, self.rounds[1:], strict=False):
            following[start : start + len(one.rows)][~one.over] = after.said.states
            start += len(one.rows)
        return Transitions(states, actions, torch.where(over, payoff[rows], 0.0), following, over)

    def pooled_states(self) -> Tensor:
        """States of all rounds."""
        return torch.cat([one.said.states for one in self.rounds])


def play(model: Model, world: negotiation.World, games: negotiation.Games, policy: Policy | None, seed: int) -> Played:
    """Play games to their ends.

    Args:
        policy: None for the model alone.
        seed: Of utterances and of the policy's random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = np.arange(len(games))
    ids = negotiation.write_headers(world, games)
    rounds = []
    for number in range(1, world.config.rounds + 1):
        ids = np.concatenate([ids, negotiation.write_cue(world, len(ids))], 1)
        before = torch.from_numpy(ids)
        states = dialogue_states(model, before)
        actions, prefix = (None, None) if policy is None else policy(states, generator)
        words = sample_utterances(model, before, prefix, tokens=negotiation.OFFER_TOKENS, generator=generator)
        after = torch.cat([before, words], 1)
        with torch.no_grad():
            loss = utterance_loss(prefixed_logits(model, after, None, last=words.shape[1]), words)
        running = negotiation.Games(games.own[rows], games.partner[rows], games.reservation[rows])
        answer = negotiation.reply(world, running, words.numpy(), number)
        taken, valid = negotiation.read_offers(world, words.numpy())
        rounds.append(
            Round(
                torch.from_numpy(rows),
                Utterances(states, after, words.shape[1]),
                actions,
                torch.from_numpy(valid),
                torch.from_numpy(taken),
                loss.cpu(),
                torch.from_numpy(answer.payoff).float(),
                torch.from_numpy(answer.over),
                torch.from_numpy(answer.agreed),
            )
        )
        ids, rows = np.concatenate([after.numpy(), answer.ids], 1)[~answer.over], rows[~answer.over]
        if not len(rows):
            break
    return Played(games, tuple(rounds))
