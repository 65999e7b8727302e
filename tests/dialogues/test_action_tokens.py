"""Prefixes, self-cloning and offline learning of a planner: what must hold, and bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.dialogues.action_tokens import (
    ActionConfig,
    ActionPlanner,
    PrefixMap,
    dialogue_states,
    prefixed_embeddings,
    prefixed_logits,
    sample_utterances,
    to_sphere,
)
from ontogeny.dialogues.self_cloning import CloningConfig, Utterances, clone_self, divergence
from ontogeny.dialogues.td3_bc import Td3Config, Transitions, join_transitions, train_planner
from ontogeny.errors import BadInput
from ontogeny.models.model import Model, model_from_network
from ontogeny.training.toy_models.in_world import ToyModelSize, build_network
from ontogeny.worlds import negotiation

WORLD = negotiation.make()
CONFIG = ActionConfig(dimensions=4, width=16)


@pytest.fixture(scope="module")
def model() -> Model:
    from transformers import AutoModelForCausalLM

    words = negotiation.tokenizer(WORLD)
    torch.manual_seed(0)
    config = build_network(ToyModelSize({}, layers=1, heads=2, width=16), len(words), WORLD.config.context)
    return model_from_network(AutoModelForCausalLM.from_config(config).eval().requires_grad_(False), words)


def ids(count: int = 6) -> torch.Tensor:
    games = negotiation.start_games(WORLD, np.random.default_rng(0), count)
    return torch.from_numpy(negotiation.write_headers(WORLD, games))


def test_prefix_of_embeddings_is_the_text_with_these_words(model: Model) -> None:
    table = model.network.get_input_embeddings().weight
    hint = torch.tensor([WORLD.vocabulary["firm"], WORLD.vocabulary["hats"]])
    plain = ids()
    written = torch.cat([plain[:, :1], hint.expand(len(plain), 2), plain[:, 1:]], 1)
    prefix = table[hint].expand(len(plain), -1, -1)
    inserted = prefixed_logits(model, plain, prefix, last=5)
    torch.testing.assert_close(inserted, prefixed_logits(model, written, None, last=5))
    one, two = (
        sample_utterances(model, rows, vectors, tokens=4, generator=torch.Generator().manual_seed(1))
        for rows, vectors in ((plain, prefix), (written, None))
    )
    assert torch.equal(one, two)
    assert not torch.allclose(inserted, prefixed_logits(model, plain, None, last=5))


@given(st.integers(0, 1000), st.floats(0.1, 5))
@settings(max_examples=10, deadline=None)
def test_actions_have_one_length_and_prefixes_are_linear(seed: int, norm: float) -> None:
    torch.manual_seed(seed)
    planner = ActionPlanner(torch.randn(5, 16), ActionConfig(dimensions=4, norm=norm, width=8))
    actions = planner(100 * torch.randn(7, 16))
    torch.testing.assert_close(actions.norm(dim=1), torch.full((7,), norm))
    torch.testing.assert_close(to_sphere(3 * actions, norm), actions)


def test_new_prefixes_are_as_long_as_embeddings(model: Model) -> None:
    table = model.network.get_input_embeddings().weight
    prefix = PrefixMap(model, CONFIG)(to_sphere(torch.randn(9, 4), CONFIG.norm))
    torch.testing.assert_close(prefix.norm(dim=2), table.norm(dim=1).mean().expand(9, 2))


def test_self_cloning_lowers_the_divergence_and_leaves_the_model(model: Model) -> None:
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    plain = ids(32)
    said = sample_utterances(model, plain, None, tokens=6, generator=torch.Generator().manual_seed(0))
    states = dialogue_states(model, plain)
    torch.manual_seed(0)
    planner, prefix_map = ActionPlanner(states, CONFIG), PrefixMap(model, CONFIG)
    turn = Utterances(states, torch.cat([plain, said], 1), 6)

    def measured() -> float:
        with torch.no_grad():
            alone = prefixed_logits(model, turn.ids, None, last=6)
            prefixed = prefixed_logits(model, turn.ids, prefix_map(planner(states)), last=6)
        assert divergence(alone, alone).abs().max() < 1e-6
        assert (divergence(alone, prefixed) > -1e-6).all()
        return float(divergence(alone, prefixed).mean())

    first = measured()
    clone_self(model, planner, prefix_map, [turn], CloningConfig(steps=60, batch=32, learning_rate=1e-2))
    assert measured() < first / 2
    after = model.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def _bandit(seed: int) -> Transitions:
    """A reward that is larger the nearer the action is to a direction that the state decides."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2000, 3, generator=generator)
    actions = to_sphere(torch.randn(2000, 4, generator=generator), CONFIG.norm)
    rewards = actions[:, 0] * states[:, 0].sign()
    return Transitions(states, actions, rewards, torch.zeros_like(states), torch.ones(2000, dtype=torch.bool))


def test_td3_reads_the_state_and_shuffled_rewards_teach_nothing() -> None:
    data = _bandit(0)
    torch.manual_seed(0)
    start = ActionPlanner(data.states, CONFIG)
    fresh = _bandit(1).states
    scores = []
    for rewards in (data.rewards, data.rewards[torch.randperm(2000)]):
        given_data = Transitions(data.states, data.actions, rewards, data.following, data.over)
        planner = train_planner(
            start, given_data, Td3Config(updates=300, batch=128, alpha=25.0, planner_rate=3e-3, width=32)
        )
        scores.append(float((planner(fresh)[:, 0] * fresh[:, 0].sign()).mean().detach()))
    assert scores[0] > 0.4 > 0.2 > scores[1]


def test_value_of_a_later_reward_reaches_the_first_turn() -> None:
    """The first action decides the second state, where the reward is; its own reward is 0."""
    generator = torch.Generator().manual_seed(0)
    actions = to_sphere(torch.randn(1500, 4, generator=generator), CONFIG.norm)
    start = torch.tensor([1.0, 0.0, 0.0]).expand(1500, 3) + 0.1 * torch.randn(1500, 3, generator=generator)
    later = torch.zeros(1500, 3)
    later[:, 1] = actions[:, 0].sign()
    none = torch.zeros(1500)
    first = Transitions(start, actions, none, later, torch.zeros(1500, dtype=torch.bool))
    second = Transitions(later, actions.flip(0), later[:, 1], torch.zeros(1500, 3), torch.ones(1500, dtype=torch.bool))
    data = join_transitions([first, second])
    torch.manual_seed(0)
    config = Td3Config(updates=400, batch=128, alpha=25.0, planner_rate=3e-3, target_rate=0.05, width=32)
    planner = train_planner(ActionPlanner(data.states, CONFIG), data, config)
    assert float(planner(start)[:, 0].mean().detach()) > 0.3


def test_rejects_bad_input(model: Model) -> None:
    plain = ids()
    data = _bandit(0)
    states = data.states
    planner = ActionPlanner(states, CONFIG)
    generator, td3 = torch.Generator(), Td3Config()
    uneven = Transitions(states, data.actions[1:], data.rewards, states, data.over)
    infinite = Transitions(states, data.actions, data.rewards / 0, states, data.over)
    for call, words in (
        (lambda: ActionConfig(dimensions=0), "`dimensions` must be at least 1"),
        (lambda: ActionConfig(norm=-1.0), "`norm` must be above 0"),
        (lambda: ActionConfig(scale=float("nan")), "`scale` must be above 0"),
        (lambda: ActionPlanner(states[:1], CONFIG), "at least two finite rows"),
        (lambda: ActionPlanner(states * float("nan"), CONFIG), "at least two finite rows"),
        (lambda: PrefixMap(model, ActionConfig(dimensions=17)), "`dimensions` must be at most 16"),
        (lambda: dialogue_states(model, plain[:0]), "at least one dialogue"),
        (lambda: prefixed_embeddings(model, plain, torch.zeros(2, 2, 16)), r"`prefix` must be \[6, vectors, 16\]"),
        (lambda: prefixed_embeddings(model, plain, None, real=plain < 0), "padded on the right"),
        (lambda: prefixed_logits(model, plain, None, last=20), "at least 21 tokens"),
        (lambda: sample_utterances(model, plain, None, tokens=0, generator=generator), "`tokens` must be at least 1"),
        (lambda: sample_utterances(model, plain, None, tokens=80, generator=generator), "exceeds the context of 88"),
        (lambda: CloningConfig(steps=0), "`steps` and `batch` must be at least 1"),
        (lambda: clone_self(model, planner, PrefixMap(model, CONFIG), [], CloningConfig()), "at least one turn"),
        (lambda: Td3Config(updates=0), "`updates` must be at least 1"),
        (lambda: Td3Config(alpha=0.0), "`alpha` must be above 0"),
        (lambda: Td3Config(discount=1.5), "`discount` must lie between 0 and 1"),
        (lambda: join_transitions([]), "at least one collection"),
        (lambda: train_planner(planner, uneven, td3), "equally many"),
        (lambda: train_planner(planner, infinite, td3), "must be finite"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=words):
            call()
