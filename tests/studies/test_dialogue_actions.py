"""Dialogue action tokens: played games as turns for reinforcement learning, and the policies that are compared."""

import numpy as np
import pytest
import torch

from ontogeny.dialogues.action_tokens import ActionConfig, ActionPlanner, PrefixMap, dialogue_states
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.models.model import Model
from ontogeny.studies.dialogue_actions import _bench
from ontogeny.studies.dialogue_actions._game import play
from ontogeny.studies.dialogue_actions._policies import fixed_prefix, planned, random_actions, random_prefixes
from ontogeny.studies.dialogue_actions._settings import Settings
from ontogeny.worlds import negotiation

WORLD = negotiation.make()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    settings = Settings(steps=60, rows=16, width=32, layers=1)
    return _bench.train_speaker(settings, Lab("dialogue_actions", 0, tmp_path_factory.mktemp("lab")), WORLD)


def test_turns_have_the_payoff_once_and_the_next_state(model: Model) -> None:
    games = negotiation.start_games(WORLD, np.random.default_rng(0), 40)
    torch.manual_seed(0)
    planner = ActionPlanner(torch.randn(9, 32), ActionConfig(width=8))
    played = play(model, WORLD, games, random_actions(planner, PrefixMap(model, ActionConfig())), 3)
    reward = torch.arange(40.0)
    turns = played.transitions(reward)
    rows = played.pooled("rows")
    assert len(played.rounds) > 1
    assert torch.equal(torch.zeros(40).index_add(0, rows, turns.rewards), reward)
    assert torch.equal(torch.bincount(rows[turns.over], minlength=40), torch.ones(40, dtype=torch.long))
    first, second = played.rounds[:2]
    assert torch.equal(turns.following[: len(first.rows)][~first.over], second.said.states)
    assert torch.equal(first.rows[~first.over], second.rows)
    before = second.said.ids[:, : -negotiation.OFFER_TOKENS]
    torch.testing.assert_close(second.said.states, dialogue_states(model, before))
    again = play(model, WORLD, games, random_actions(planner, PrefixMap(model, ActionConfig())), 3)
    assert torch.equal(played.payoff, again.payoff)


def test_policies_keep_their_lengths(model: Model) -> None:
    states, config = torch.randn(50, 32), ActionConfig(width=8)
    planner, prefix_map = ActionPlanner(states, config), PrefixMap(model, config)
    generator = torch.Generator().manual_seed(0)
    plain, _ = planned(planner, prefix_map)(states, generator)
    noisy, _ = planned(planner, prefix_map, noise=0.5)(states, generator)
    shuffled, _ = planned(planner, prefix_map, shuffled=True)(states, generator)
    for actions in (plain, noisy, shuffled):
        assert actions is not None
        torch.testing.assert_close(actions.norm(dim=1), torch.full((50,), config.norm))
    assert plain is not None
    assert noisy is not None
    assert shuffled is not None
    assert not torch.allclose(plain, noisy)
    assert not torch.equal(plain, shuffled)
    torch.testing.assert_close(plain.sort(0).values, shuffled.sort(0).values)
    _, prefix = random_prefixes(torch.tensor([2.0, 3.0]), 32)(states, generator)
    assert prefix is not None
    torch.testing.assert_close(prefix.norm(dim=2), torch.tensor([2.0, 3.0]).expand(50, 2))
    _, same = fixed_prefix(torch.ones(2, 32))(states, generator)
    assert same is not None
    assert same.shape == (50, 2, 32)
