"""Scores of steering: what they are by hand, what they are where nothing was steered, and what they refuse."""

import math

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.interventions import Add
from ontogeny.models.model import load_model
from ontogeny.steering.promote_suppress import promote_suppress
from ontogeny.steering.refusal_score import is_refusal, refusal_log_odds, refusal_phrase_scores
from ontogeny.steering.side_effects import alpha_at_equal_kl, distinct_n, measure_side_effects
from ontogeny.tasks.truthfulqa_mc import TruthfulQAQuestion, score_multiple_choice

TEXTS = ["The ball is red.", "A dog", "Nobody knows where the river ends"]


@pytest.fixture(scope="module")
def model(tiny):
    return load_model(tiny("gpt_neox"))


def push(model, alpha=1.0, seed=5):
    return [("resid.1", Add(torch.randn(model.d, generator=torch.Generator().manual_seed(seed)), alpha), "generated")]


def test_side_effects_equal_those_computed_from_the_logits(model):
    free = measure_side_effects(model, TEXTS, push(model, 0.0))
    assert torch.equal(free.before, free.after)
    assert free.divergence.abs().max() == 0
    cost, dear = measure_side_effects(model, TEXTS, push(model)), measure_side_effects(model, TEXTS, push(model, 8.0))
    assert (cost.divergence > 0).all()
    assert (dear.divergence > cost.divergence).all()
    assert torch.equal(cost.before, free.before)
    ids = model.tokenizer(TEXTS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model.network(ids, labels=ids).loss
    assert cost.before[0] == pytest.approx(float(loss), rel=1e-5)
    alone = measure_side_effects(model, TEXTS[:1], push(model))
    assert (float(alone.after), float(alone.divergence)) == pytest.approx(
        (float(cost.after[0]), float(cost.divergence[0])), rel=1e-4
    )


def test_alpha_at_equal_kl_reaches_the_target(model):
    def divergence(seed):
        return lambda alpha: float(measure_side_effects(model, TEXTS, push(model, alpha, seed)).divergence.mean())

    alphas = [alpha_at_equal_kl(divergence(seed), 0.01) for seed in (5, 6)]
    assert [divergence(seed)(alpha) for seed, alpha in zip((5, 6), alphas, strict=True)] == pytest.approx(
        [0.01] * 2, rel=0.01
    )
    assert alphas[0] != pytest.approx(alphas[1], rel=0.02)
    assert alpha_at_equal_kl(lambda alpha: alpha**2, 9.0) == pytest.approx(3.0, rel=0.01)
    for cost, target, words in (
        (lambda alpha: 1 - math.exp(-alpha), 2.0, "no alpha up to"),
        (lambda alpha: float(alpha > 3), 0.5, "jumps over"),
        (lambda alpha: alpha, 0.0, "above 0"),
        (lambda alpha: alpha, math.nan, "above 0"),
    ):
        with pytest.raises(BadInput, match=words):
            alpha_at_equal_kl(cost, target)


def test_promote_suppress_equals_values_by_hand():
    matching = torch.tensor([True] * 4 + [False] * 4)
    base = torch.tensor([-4.0, -3, -2, -1, -1, -2, -3, -4])
    steered = base + torch.tensor([1.0, 0.5, 0, 0, -2, -1, 0, 0])
    found = promote_suppress(base, steered, matching, [0, 1, 2, 3, 0, 1, 2, 3])
    assert [q.share for q in found] == [0.25, 0.5, 0.75, 1.0]
    assert [q.promote[0] for q in found] == pytest.approx([1.0, 0.75, 0.5, 0.375])
    assert [q.suppress[0] for q in found] == pytest.approx([2.0, 1.5, 1.0, 0.75])
    assert all(q.promote[1] <= q.promote[0] <= q.promote[2] for q in found)
    nothing = promote_suppress(base, base, matching, [0, 1, 2, 3] * 2)
    assert all(q.promote == (0, 0, 0) and q.suppress == (0, 0, 0) for q in nothing)


def test_promote_suppress_of_noise_includes_zero():
    g = torch.Generator().manual_seed(0)
    base = torch.randn(200, generator=g)
    matching = torch.arange(200) % 2 == 0
    prompts = [i // 2 for i in range(200)]
    noise = promote_suppress(base, base + 0.1 * torch.randn(200, generator=g), matching, prompts)
    real = promote_suppress(base, base + 0.1 * torch.randn(200, generator=g) + 0.1 * matching, matching, prompts)
    assert noise[-1].promote[1] < 0 < noise[-1].promote[2]
    assert real[-1].promote[1] > 0
    assert real[-1].suppress[1] < 0 < real[-1].suppress[2]


def test_multiple_choice_prefers_what_the_model_prefers(model):
    right, wrong = " a", " b"
    one = score_multiple_choice(
        model, [TruthfulQAQuestion("Who?", (right,), (wrong,)), TruthfulQAQuestion("Who?", (wrong,), (right,))]
    )
    assert sorted(one.mc1.tolist()) == [0.0, 1.0]
    assert float(one.mc2.sum()) == pytest.approx(1.0)
    assert one.mc1[0] == float(one.mc2[0] > 0.5)


def test_refusal_log_odds_are_the_models_own(model):
    ids = model.tokenizer("Help", return_tensors="pt").input_ids
    with torch.no_grad():
        p = float(model.network(ids).logits[0, -1].double().softmax(-1)[model.tokenizer(" I").input_ids[0]])
    # Each byte is a token here: every phrase starts with the same one, the space.
    assert float(refusal_log_odds(model, ["Help"])[0]) == pytest.approx(math.log(p / (1 - p)), rel=1e-4)
    moved = refusal_log_odds(model, ["Help"], [("resid.1", Add(torch.ones(model.d) * torch.arange(model.d)), "last")])
    assert float(moved[0]) != pytest.approx(math.log(p / (1 - p)), rel=1e-5)


def test_phrases_and_repetition():
    assert is_refusal("  I’m sorry, but no.")
    assert is_refusal("As an AI, I")
    assert not is_refusal("Sure. I cannot wait.")
    assert refusal_phrase_scores(["I can't", "Yes"]).tolist() == [1, 0]
    assert len(refusal_phrase_scores([])) == 0
    assert distinct_n([torch.tensor([1, 2, 1, 2, 1])]) == 0.5
    assert distinct_n([torch.tensor([1, 2, 3])]) == 1.0
    assert math.isnan(distinct_n([torch.tensor([1])]))


def test_invalid_scores_are_rejected_in_one_line(model):
    for make, words in (
        (lambda: TruthfulQAQuestion("Who?", (), ("a",)), "lacks one"),
        (lambda: score_multiple_choice(model, [TruthfulQAQuestion("Who?", (" ",), (" b",))]), "must have tokens"),
        (lambda: promote_suppress(torch.ones(2), torch.ones(2), torch.ones(2).bool(), [0, 1]), "do not"),
        (lambda: measure_side_effects(model, ["A"], push(model)), "neutral text must have"),
        (
            lambda: measure_side_effects(model, TEXTS, [("resid.1", Add(torch.ones(32)), [torch.ones(2).bool()])]),
            "got masks",
        ),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)
