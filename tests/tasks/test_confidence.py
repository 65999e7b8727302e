"""Confidence of a model: equal to that of each text alone, and to the softmax of the log-likelihoods of answers."""

import pytest
import torch

from ontogeny.data.examples import Answer
from ontogeny.tasks.confidence import AnswerProbabilities, answer_probabilities, next_token_certainty
from tests.neurons.test_entropy_neurons import lively

TEXTS = ["a man went to the hill with 1 cats", "the king went to the sea with 2 cats", "a man went", "short"]


def test_certainty_equals_that_of_each_text_alone(tiny):
    model = lively(tiny("gpt_neox"))
    entropy, top = next_token_certainty(model, TEXTS, tokens=24, batch=4)
    for i, text in enumerate(TEXTS):
        ids = model.tokenizer(text, return_tensors="pt").input_ids[:, :24]
        with torch.no_grad():
            p = model.network(ids).logits[0].double().softmax(-1)
        assert float(entropy[i]) == pytest.approx(float(-(p * p.log()).sum(-1).mean()), abs=1e-4)
        assert float(top[i]) == pytest.approx(float(p.amax(-1).mean()), abs=1e-5)


def test_answer_probabilities_are_the_softmax_of_log_likelihoods(tiny):
    model = lively(tiny("gpt_neox"))
    answers = [Answer("1 + 1 =", " 2", " 11", "a"), Answer("2 + 2 =", " 4", " 22", "b")]
    said = answer_probabilities(model, answers)
    assert said.hit.tolist() == (said.shares[:, 0] >= said.shares[:, 1]).tolist()
    assert said.shares.sum(1).tolist() == pytest.approx([1, 1])
    with torch.no_grad():
        scores = []
        for option in (" 2", " 11"):
            ids = model.tokenizer("1 + 1 =" + option, return_tensors="pt").input_ids
            logs = model.network(ids).logits[0].double().log_softmax(-1)
            scores.append(sum(logs[t - 1, ids[0, t]] for t in range(7, ids.shape[1])))
    assert said.shares[0].tolist() == pytest.approx(torch.stack(scores).softmax(0).tolist(), abs=1e-5)


def test_probabilities_that_are_no_numbers_are_no_hit():
    said = AnswerProbabilities(torch.tensor([[torch.nan, torch.nan], [0.6, 0.4], [0.4, 0.6]]))
    assert said.hit.tolist() == [False, True, False]
