"""Objectives against explicit formulas on a random model; each test would fail for a similar formula."""

import functools
import math

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.training.batches import (
    PreferenceBatch,
    PromptBatch,
    TokenBatch,
    UnlearningBatch,
    concatenate_batches,
    pad_batch,
)
from ontogeny.training.objectives.dpo import Preference, with_reference_log_probs
from ontogeny.training.objectives.grpo import GroupRelative, group_advantages
from ontogeny.training.objectives.language_model import answers_only, language_model
from ontogeny.training.objectives.log_probs import answer_log_probs
from ontogeny.training.objectives.objective import describe_objective
from ontogeny.training.objectives.unlearning import Unlearn
from ontogeny.training.rollouts import sample_rollouts, text_reward
from tests.helpers.tiny_models import byte_tokenizer, tiny_model

ROWS = [[5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16]]
STARTS = [2, 1, 3]
OTHERS = [[5, 6, 30], [10, 40, 41, 42, 43, 44], [13, 14, 15, 50]]


@pytest.fixture(scope="module")
def network():
    return tiny_model("gpt_neox", seed=0)


@pytest.fixture(scope="module")
def reference():
    return tiny_model("gpt_neox", seed=1)


@torch.no_grad()
def by_hand(network, row: list[int], start: int) -> float:
    """Log-probability of a row's tokens from `start` on, one row at a time, no padding."""
    logits = network(torch.tensor([row])).logits[0].double()
    return sum(math.log(torch.softmax(logits[t - 1], -1)[row[t]]) for t in range(start, len(row)))


def near(value: float):
    return pytest.approx(value, rel=1e-5)


def test_language_model_averages_over_tokens(network):
    total = sum(by_hand(network, row, 1) for row in ROWS)
    tokens = sum(len(row) - 1 for row in ROWS)
    assert language_model(network, pad_batch(ROWS, STARTS)).item() == near(-total / tokens)
    means = [by_hand(network, row, 1) / (len(row) - 1) for row in ROWS]
    assert abs(sum(means) / 3 - total / tokens) > 1e-3  # the mean of rows' means is another number


def test_answers_only_averages_over_answer_tokens(network):
    tokens = sum(len(row) - start for row, start in zip(ROWS, STARTS, strict=True))
    total = sum(by_hand(network, row, start) for row, start in zip(ROWS, STARTS, strict=True))
    assert answers_only(network, pad_batch(ROWS, STARTS)).item() == near(-total / tokens)
    with pytest.raises(BadInput, match="needs a mask"):
        answers_only(network, pad_batch(ROWS))


def test_padding_token_does_not_matter(network):
    for filler in (0, 17):
        batch = pad_batch(ROWS, STARTS, filler=filler)
        assert answer_log_probs(network, batch).tolist() == [
            near(by_hand(network, row, start)) for row, start in zip(ROWS, STARTS, strict=True)
        ]


def pairs() -> PreferenceBatch:
    return PreferenceBatch(pad_batch(ROWS, STARTS), pad_batch(OTHERS, STARTS))


def ratios(network, reference, rows: list[list[int]]) -> list[float]:
    return [by_hand(network, r, s) - by_hand(reference, r, s) for r, s in zip(rows, STARTS, strict=True)]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize(("beta", "other"), [(0.1, None), (0.5, None), (0.1, 0.01)])
def test_preference_equals_the_dpo_formula(network, reference, beta, other):
    wins, losses = ratios(network, reference, ROWS), ratios(network, reference, OTHERS)
    second = beta if other is None else other
    expected = -sum(log_sigmoid(beta * w - second * r) for w, r in zip(wins, losses, strict=True)) / 3
    objective = Preference(beta, other)
    assert objective(network, pairs(), reference).item() == near(expected)
    assert objective(network, with_reference_log_probs(pairs(), reference)).item() == near(expected)


def test_preference_starts_at_log_two_and_decreases(network):
    loss = Preference()(network, pairs(), network)
    assert loss.item() == near(math.log(2))
    trained = tiny_model("gpt_neox", seed=0)
    before = Preference(0.5)(trained, pairs(), network)
    before.backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter -= 0.1 * parameter.grad
    assert float(Preference(0.5)(trained, pairs(), network).detach()) < float(before.detach())
    wins, losses = ratios(trained, network, ROWS), ratios(trained, network, OTHERS)
    assert sum(wins) > sum(losses)


def test_preference_needs_a_reference(network):
    with pytest.raises(BadInput, match="reference"):
        Preference()(network, pairs())


def forgetting() -> UnlearningBatch:
    return UnlearningBatch(forget=pad_batch(ROWS, STARTS), retain=pad_batch(OTHERS))


def test_ascent_is_minus_forget_plus_retain_loss(network):
    forget = answers_only(network, pad_batch(ROWS, STARTS))
    retain = language_model(network, pad_batch(OTHERS))
    got = Unlearn("ascent", forget=0.3, retain=2.0)(network, forgetting())
    assert got.item() == near((2.0 * retain - 0.3 * forget).item())


def test_npo_equals_its_formula(network, reference):
    beta = 0.2
    found = ratios(network, reference, ROWS)
    expected = -2 / beta * sum(log_sigmoid(-beta * r) for r in found) / 3
    got = Unlearn("npo", beta=beta, retain=0.0)(network, forgetting(), reference)
    assert got.item() == near(expected)
    with pytest.raises(BadInput, match="reference"):
        Unlearn()(network, forgetting())


def test_npo_approaches_ascent_for_small_beta(network, reference):
    """The gradients agree up to the factor between means over rows and over tokens, here for one row."""
    one = UnlearningBatch(pad_batch(ROWS[:1], STARTS[:1]), pad_batch(OTHERS[:1]))

    def gradient(objective) -> torch.Tensor:
        network.zero_grad()
        objective(network, one, reference).backward()
        return network.get_input_embeddings().weight.grad.clone()

    ascent = gradient(Unlearn("ascent", retain=0.0)) * (len(ROWS[0]) - STARTS[0])
    torch.testing.assert_close(gradient(Unlearn("npo", beta=1e-4, retain=0.0)), ascent, rtol=1e-2, atol=1e-5)
    large = gradient(Unlearn("npo", beta=20.0, retain=0.0))
    assert float((large - ascent).abs().max()) > 0.1 * float(ascent.abs().max())
    network.zero_grad()


def test_rejects_unknown_unlearning_method():
    with pytest.raises(BadInput, match="did you mean ascent"):
        Unlearn("descent")


def test_pad_batch_masks_and_errors():
    batch = pad_batch([[1, 2, 3], [4, 5]], [2, 1], filler=9)
    assert batch.ids.tolist() == [[1, 2, 3], [4, 5, 9]]
    assert batch.mask.tolist() == [[False, False, True], [False, True, False]]
    assert batch.real.tolist() == [[True] * 3, [True, True, False]]
    assert batch.tokens == 5
    assert pad_batch([[1, 2], [3, 4]]).real is None
    for rows, starts in (([], None), ([[1], []], None), ([[1, 2]], [0]), ([[1, 2]], [2]), ([[1, 2]], [1, 1])):
        with pytest.raises(BadInput):
            pad_batch(rows, starts)


def test_concatenated_rows_keep_their_masks():
    both = concatenate_batches(pad_batch([[1, 2, 3]], [1]), TokenBatch(torch.tensor([[4, 5]])))
    assert both.ids.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert both.mask.tolist() == [[False, True, True], [True, True, False]]


def test_description_of_objectives():
    assert describe_objective(language_model) == {"name": "language_model"}
    assert describe_objective(Preference(0.3)) == {"name": "Preference", "beta": 0.3, "beta_rejected": None}
    assert describe_objective(functools.partial(language_model, scale=2)) == {"name": "language_model", "scale": 2}
    assert describe_objective(Unlearn()) != describe_objective(Unlearn("ascent"))


def count_of(token: int):
    """Rewards an answer for every time it says a token."""

    def said(prompt, answer) -> float:
        return float(list(answer).count(token))

    return said


def test_rollouts_follow_the_model_probabilities(network):
    prompts = pad_batch([[5, 6, 7], [8, 9]])
    torch.manual_seed(0)
    drawn = sample_rollouts(network, prompts, copies=4000, new_tokens=1)
    assert drawn.ids.shape == (8000, 4)
    assert drawn.tokens == 4000 * 4 + 4000 * 3
    for row, ids in enumerate([[5, 6, 7], [8, 9]]):
        with torch.no_grad():
            expected = network(torch.tensor([ids])).logits[0, -1].softmax(-1)
        rows = slice(4000 * row, 4000 * (row + 1))
        assert drawn.ids[rows, : len(ids)].unique(dim=0).tolist() == [ids]
        found = torch.bincount(drawn.ids[rows][drawn.mask[rows]], minlength=len(expected)) / 4000
        assert float((found - expected).abs().sum()) < 0.3
    torch.manual_seed(0)
    cold = sample_rollouts(network, prompts, copies=2, new_tokens=3, temperature=1e-4)
    with torch.no_grad():
        assert cold.ids[0, 3] == network(torch.tensor([[5, 6, 7]])).logits[0, -1].argmax()
        assert cold.ids[0, 5] == network(cold.ids[:1, :5]).logits[0, -1].argmax()


def test_rollouts_stop_and_keep_the_training_mode(network):
    torch.manual_seed(0)
    drawn = sample_rollouts(network, pad_batch([[5, 6]]), copies=300, new_tokens=20, stop=3, temperature=3.0)
    ended = [row for row in range(300) if int(drawn.ids[row][drawn.mask[row]][-1]) == 3]
    assert 0 < len(ended) < 300
    assert all((drawn.ids[row][drawn.mask[row]][:-1] != 3).all() for row in range(300))
    network.train()
    sample_rollouts(network, pad_batch([[5, 6]]), copies=2, new_tokens=1)
    assert network.training
    network.eval()
    with pytest.raises(BadInput, match="context of 128"):
        sample_rollouts(network, pad_batch([[5, 6]]), copies=2, new_tokens=127)


def test_group_advantages():
    assert group_advantages(torch.tensor([1.0, 0.0, 3.0, 3.0]), 2).tolist() == [1.0, -1.0, 0.0, 0.0]


def test_group_relative_equals_its_formula(network, reference):
    objective = GroupRelative(count_of(7), group=2, new_tokens=3, beta=0.3, stop=8)
    drawn = pad_batch([[5, 6, 7, 8], [5, 6, 9], [10, 7, 7], [10, 11, 8]], [2, 2, 1, 1])
    assert objective.rewards(drawn).tolist() == [1.0, 0.0, 2.0, 0.0]
    rewards = [1.0, -1.0, 1.0, -1.0]

    def token(model, row: list[int], t: int) -> torch.Tensor:
        return torch.log_softmax(model(torch.tensor([row])).logits[0, t - 1].double(), -1)[row[t]]

    total, policy = 0.0, 0.0
    for row, (ids, start) in enumerate(
        zip([[5, 6, 7, 8], [5, 6, 9], [10, 7, 7], [10, 11, 8]], [2, 2, 1, 1], strict=True)
    ):
        spans = range(start, len(ids))
        for t in spans:
            here, there = token(network, ids, t), token(reference, ids, t).detach()
            kl = (there - here).exp() - (there - here) - 1
            total += (rewards[row] - 0.3 * kl) / len(spans) / 4
            policy += (rewards[row] * here - 0.3 * kl) / len(spans) / 4
    loss = objective.loss(network, drawn, group_advantages(objective.rewards(drawn), 2), reference)
    assert loss.item() == near(-total.item())
    weights = network.get_input_embeddings().weight
    ours, theirs = torch.autograd.grad(loss, weights)[0], torch.autograd.grad(-policy, weights)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_group_relative_increases_the_reward():
    network, start = tiny_model("gpt_neox"), tiny_model("gpt_neox")
    objective = GroupRelative(count_of(7), group=16, new_tokens=4, temperature=1.0)
    batch = PromptBatch(pad_batch([[5, 6, 7], [8, 9]]))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)

    def said() -> float:
        drawn = sample_rollouts(network, batch.prompts, copies=64, new_tokens=4)
        return objective.rewards(drawn).mean().item()

    torch.manual_seed(0)
    before = said()
    for _ in range(60):
        optimiser.zero_grad()
        objective(network, batch, start).backward()
        optimiser.step()
    assert before < 0.2
    assert said() > 2.0


def test_text_reward():
    tokenizer = byte_tokenizer()

    def shouts(prompt: str, answer: str) -> float:
        return float(answer.isupper() and prompt == "say")

    reward = text_reward(shouts, tokenizer)
    said = tokenizer(["HO", "ho"])["input_ids"]
    assert [reward(tokenizer("say")["input_ids"], ids) for ids in said] == [1.0, 0.0]
    assert describe_objective(GroupRelative(reward))["reward"] == "shouts"
    with pytest.raises(BadInput, match="at least 2"):
        GroupRelative(reward, group=1)
