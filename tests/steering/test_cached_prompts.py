"""Prompts that ran once give the same scores as prompts that run each time; an effect stands beside its controls."""

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.interventions import Ablate, Add, Reweight, Zero
from ontogeny.models.model import load_model
from ontogeny.steering.cached_prompts import CachedPrompts
from ontogeny.steering.controls import EffectWithControls, compare_with_controls
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers
from tests.helpers.tiny_models import SHAPES

PAIRS = [("Who is it?", " A dog"), ("H", " yes"), ("The ball is", " red and blue"), ("Who is it?", " Me")]


def vector(d, seed=7):
    return 3 * torch.randn(d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", sorted(set(SHAPES) - {"bert"}))
def test_scores_equal_those_of_full_forward_passes(tiny, family):
    model = load_model(tiny(family))
    answers = tokenize_answers(model, PAIRS)
    prefixed = CachedPrompts.of(model, answers, batch=3)
    for edits in (
        (),
        [("resid.1", Add(vector(model.d)), "last")],
        [("resid.1", Add(vector(model.d)), "generated"), ("attn.2", Ablate.of(vector(model.d, 3)), "last")],
        [("resid.1", Add(vector(model.d)), "last")],
    ):
        for ours, whole in zip(prefixed.scores(edits), token_log_likelihoods(model, answers, edits), strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-4, atol=2e-5)
    moved = log_likelihoods(prefixed.scores([("resid.1", Add(vector(model.d)), "last")])) - log_likelihoods(
        prefixed.scores()
    )
    assert moved.abs().max() > 1e-3


def test_rejects_edits_that_change_the_prompts(tiny):
    model = load_model(tiny("gpt2"))
    prefixed = CachedPrompts.of(model, tokenize_answers(model, PAIRS))
    for edits in (
        [("resid.1", Add(vector(32)))],
        [("mlp.1", Zero(), "prompt")],
        [("attn.1", Reweight(2.0), "generated")],
    ):
        with pytest.raises(BadInput, match="edits of cached prompts must be"):
            prefixed.scores(edits)
    prefixed.scores([("resid.1", Add(vector(32), 0.0))])


def test_effect_is_compared_with_its_controls(tiny):
    model = load_model(tiny("llama"))
    answers = tokenize_answers(model, PAIRS)
    prefixed = CachedPrompts.of(model, answers)
    # Towards what is said: the embedding of an answer's token, which the model is tied to read as its logit.
    towards = model.network.get_input_embeddings().weight[answers[0].ids[-1]].detach()
    edits = [("resid.2", Add(towards / towards.norm(), 3.0), "last")]

    def likelihood(given):
        return float(prefixed.scores(given)[0][-1])

    real = compare_with_controls(likelihood, edits, seeds=range(60))
    assert real.value > real.high
    assert real.p < 0.05
    null = compare_with_controls(likelihood, [(s, what.null(99), where) for s, what, where in edits], seeds=range(60))
    assert null.low <= null.value <= null.high
    assert null.p > 0.05
    assert EffectWithControls(0.0, torch.zeros(9)).p == 1.0
    for given, seeds in ((edits, []), ([("resid.2", Add(towards, 0.0))], [1])):
        with pytest.raises(BadInput, match="at least one control"):
            compare_with_controls(likelihood, given, seeds=seeds)
