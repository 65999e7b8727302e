"""GRPO in rounds: the clipped loss has its formula, the reward rises, and rounds without a gradient end it with a reason."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ontogeny.errors import BadInput
from ontogeny.training.batches import TokenBatch, pad_batch
from ontogeny.training.grpo import GrpoConfig, GrpoRound, grpo_rounds
from ontogeny.training.objectives.grpo import ClippedPolicy, ScoredRollouts, policy_loss
from ontogeny.training.objectives.log_probs import token_log_probs

PROMPTS = pad_batch([[5, 6, 7], [8, 9]])
STEPS = GrpoConfig(12, group=8, new_tokens=5, learning_rate=1e-2)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    shape = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=16, max_position_embeddings=16, **shape))


def says_eleven(rollouts: TokenBatch) -> torch.Tensor:
    return ((rollouts.ids == 11) & rollouts.mask).sum(1).float()


def run(reward=says_eleven, config: GrpoConfig = STEPS, model=None) -> list[GrpoRound]:
    return list(grpo_rounds(network() if model is None else model, lambda _: PROMPTS, reward, config))


def test_clipped_loss_equals_its_formula() -> None:
    model = network()
    rollouts = pad_batch([[5, 6, 7, 8], [5, 6, 9], [10, 7, 7], [10, 11, 8]], [2, 2, 1, 1])
    now = token_log_probs(model, rollouts)
    shift = 0.4 * torch.randn(now.shape, generator=torch.Generator().manual_seed(1))
    advantages, clip, beta = torch.tensor([1.0, -1.0, 0.5, -0.5]), 0.2, 0.3
    scored = ScoredRollouts(rollouts, advantages, (now - shift).detach(), (now - 2 * shift).detach())
    total = 0.0
    for row, (start, end) in enumerate([(2, 4), (2, 3), (1, 3), (1, 3)]):
        for t in range(start, end):
            s, a = float(shift[row, t - 1]), float(advantages[row])
            bounded = min(max(math.exp(s), 1 - clip), 1 + clip)
            gain = min(math.exp(s) * a, bounded * a) - beta * (math.exp(-2 * s) + 2 * s - 1)
            total += gain / (end - start) / 4
    assert ClippedPolicy(clip, beta)(model, scored).item() == pytest.approx(-total, abs=1e-6)
    some = scored.rows(torch.tensor([2, 0]))
    assert some.rollouts.ids.tolist() == rollouts.ids[[2, 0]].tolist()
    # A token beyond the clip, on the side that its advantage asks for, has no gradient.
    log_probs = now.detach().requires_grad_()
    policy_loss(log_probs, scored.sampled, log_probs.detach(), advantages, rollouts, beta=0.0, clip=clip).backward()
    outside = (advantages[:, None] * shift > 0) & ((shift.exp() - 1).abs() > clip)
    counted = rollouts.mask[:, 1:]
    assert outside[counted].any()
    assert (log_probs.grad[outside & counted] == 0).all()
    assert (log_probs.grad[~outside & counted] != 0).all()


def test_reward_rises_and_the_rounds_say_how() -> None:
    before = torch.random.get_rng_state()
    rounds = run()
    assert torch.equal(before, torch.random.get_rng_state())
    first, last = rounds[0], rounds[-1]
    assert last.reward > first.reward + 1
    assert first.kl == pytest.approx(0, abs=1e-7)
    assert last.kl > 0.05
    assert first.rewards.shape == (16,)
    assert first.length == 5
    assert math.isnan(first.truncated)
    assert 0 < max(one.clipped for one in rounds) <= 1
    assert [one.reward for one in run()] == [one.reward for one in rounds], "one seed, one course"
    ended = run(config=GrpoConfig(1, group=40, new_tokens=5, stop=11))[0]
    share = float((says_eleven(ended.rollouts) > 0).float().mean())
    assert 0 < ended.truncated < 1
    assert ended.truncated == pytest.approx(1 - share)


def test_equal_rewards_change_nothing_and_stop_the_training() -> None:
    model = network()
    weights = [p.clone() for p in model.parameters()]
    rounds = run(lambda batch: torch.ones(len(batch.ids)), model=model)
    assert [one.equal_groups for one in rounds] == [1.0] * 5
    assert [bool(one.stopped) for one in rounds] == [False] * 4 + [True]
    assert "stopped after round 5: in 100% of the groups all rewards are equal" in rounds[-1].stopped
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_wrong_settings_and_rewards_are_refused() -> None:
    for options, words in (
        ({"group": 1}, "`group` must be at least 2, got 1"),
        ({"rounds": 0}, "must be at least 1"),
        ({"temperature": 0.0}, "`temperature` above 0"),
        ({"most_equal": 0.0}, "`most_equal` must lie above 0"),
        ({"clip": 1.5}, "`clip` must lie between 0 and 1"),
        ({"beta": -1.0}, "`beta` be at least 0"),
    ):
        with pytest.raises(BadInput, match=words):
            GrpoConfig(**{"rounds": 2, **options})
    for reward, words in (
        (lambda batch: torch.ones(3), "one finite number for each of 16 answers"),
        (lambda batch: torch.full((len(batch.ids),), math.nan), "one finite number"),
    ):
        with pytest.raises(BadInput, match=words):
            run(reward)
    with pytest.raises(BadInput, match="`updates` must be at most the 16 answers"):
        run(config=GrpoConfig(2, new_tokens=3, updates=17))
    with pytest.raises(BadInput, match="exceed the context of 16"):
        run(config=GrpoConfig(2, new_tokens=30))
