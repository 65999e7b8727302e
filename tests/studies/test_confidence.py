"""Confidence study: values computed by hand, a planted entropy neuron and its swap, and weights restored bit for bit."""

import math
from dataclasses import replace

import pytest
import torch

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import load_model
from ontogeny.neurons.entropy_neurons import neuron_output_vectors
from ontogeny.studies import confidence as study
from ontogeny.studies.confidence.measure import BootstrapEstimate, answer_probabilities, next_token_certainty
from ontogeny.studies.confidence.settings import ConfidenceSettings
from ontogeny.studies.confidence.stage_pairs import cache_stage, donor_stages, swap_neuron_weights
from tests.neurons.test_entropy_neurons import PLANTED, lively, plant
from tests.studies.test_refusal import one, rows

TEXTS = [
    f"{who} went to the {where} with {n} cats"
    for who in ("a man", "the king")
    for where in ("hill", "sea")
    for n in "123"
]
ANSWERS = [Answer(f"what is {n} ?", f" it is {n}", f" it is {n + 1}", f"pair {n // 2}") for n in range(12)]
INPUTS = StudyInputs(neutral=tuple(TEXTS), questions=tuple(ANSWERS))
FAST = ConfidenceSettings(tokens=32, count=3, tested=4, swaps=4, scatter=10, samples=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.helpers.tiny_models import save_tiny

    return save_tiny("gpt_neox", tmp_path_factory.mktemp("neox"))


@pytest.fixture(scope="module")
def pair(folder):
    """The same model twice, with a neuron in the null space of the unembedding: too short to matter, and long."""
    return {"base": plant(lively(folder), length=0.3), "post": plant(lively(folder), length=40.0)}


@pytest.fixture(scope="module")
def found(pair):
    return list(study.run(pair, INPUTS, FAST))


def test_certainty_equals_that_of_each_text_alone(pair):
    model = pair["base"]
    entropy, top = next_token_certainty(model, [*TEXTS[:3], "short"], tokens=24, batch=4)
    for i, text in enumerate([*TEXTS[:3], "short"]):
        ids = model.tokenizer(text, return_tensors="pt").input_ids[:, :24]
        with torch.no_grad():
            p = model.network(ids).logits[0].double().softmax(-1)
        assert float(entropy[i]) == pytest.approx(float(-(p * p.log()).sum(-1).mean()), abs=1e-4)
        assert float(top[i]) == pytest.approx(float(p.amax(-1).mean()), abs=1e-5)


def test_answer_probabilities_are_the_softmax_of_log_likelihoods(pair):
    model = pair["base"]
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


def test_every_stage_has_numbers_and_a_calibrated_baseline(found):
    for stage in ("base", "post"):
        for metric in ("entropy", "top_probability", "question_accuracy", "ece", "ece_adaptive", "brier"):
            row = one(found, metric, stage=stage, control=None)
            assert row.low <= row.value <= row.high, metric
        floor = one(found, "ece", stage=stage, control="calibrated")
        assert 0 < floor.low < floor.value < floor.high
        assert sum(row.n for row in rows(found, "reliability", stage=stage)) == len(ANSWERS)


def test_planted_neuron_is_found_in_its_stage_only(found):
    assert one(found, "entropy_neurons", stage="base").value == 0
    planted = one(found, "entropy_neurons", stage="post")
    assert (planted.value, planted.coords["neurons"]) == (1, str(PLANTED))
    total = one(found, "entropy_effect", stage="post", neuron=str(PLANTED), form="total")
    frozen = one(found, "entropy_effect", stage="post", neuron=str(PLANTED), form="frozen")
    assert total.value > 10 * frozen.value
    assert total.value > one(found, "entropy_effect", stage="post", control="random_neurons", form="total").high
    assert one(found, "indirect_share", stage="post", neuron=str(PLANTED)).value > 0.9


def test_swap_explains_the_gap_and_random_neurons_do_not(found):
    gap = one(found, "confidence_gap", stage="base", other_stage="post", of="entropy")
    swap = one(found, "swap_effect", stage="base", other_stage="post", of="entropy", control=None)
    null = one(found, "swap_effect", stage="base", other_stage="post", of="entropy", control="random_neurons")
    assert not gap.low <= 0 <= gap.high
    assert abs(null.value) < 0.2 * abs(swap.value)
    assert one(found, "swap_share", stage="base", other_stage="post", of="entropy").value == pytest.approx(1)
    # The other way the base has no candidate of that number: its rows leave the planted neuron alone.
    assert one(found, "swap_share", stage="post", other_stage="base", of="entropy").value < 0.1


def test_neurons_of_related_stages_match_and_overlap(found):
    assert one(found, "neuron_match", stage="post", other_stage="base").value > 0.95
    iou = one(found, "neuron_overlap", stage="post", other_stage="base", by="variance", control=None)
    chance = one(found, "neuron_overlap", stage="post", other_stage="base", by="variance", control="random_set")
    assert iou.value > chance.high


def test_swap_restores_weights_even_after_an_exception(pair):
    model, other = pair["base"], neuron_output_vectors(pair["post"])
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    with swap_neuron_weights(model, other, [PLANTED, 3]):
        inside = neuron_output_vectors(model)
        assert torch.equal(inside[[PLANTED, 3]], other[[PLANTED, 3]])
        assert torch.equal(inside[4:7], neuron_output_vectors(model)[4:7])
    with pytest.raises(RuntimeError, match="on purpose"), swap_neuron_weights(model, other, [PLANTED]):
        raise RuntimeError("on purpose")
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
    with pytest.raises(BadInput, match="one architecture"), swap_neuron_weights(model, other[:5], [0]):
        pass


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "olmo2", "gemma2"])
def test_stage_cache_equals_swapped_weights(tiny, family):
    model, other = lively(tiny(family)), neuron_output_vectors(lively(tiny(family, seed=1)))
    chosen = [3, 9, 20]
    end = cache_stage(model, TEXTS[:5], ANSWERS, [*chosen, 30], tokens=32)
    plain, said = end.under(neuron_output_vectors(model), chosen)
    assert torch.allclose(plain, next_token_certainty(model, TEXTS[:5], tokens=32)[0], atol=1e-4)
    assert torch.allclose(said.shares, answer_probabilities(model, ANSWERS).shares, atol=1e-4)
    sure, believed = end.under(other, chosen)
    with swap_neuron_weights(model, other, chosen):
        assert torch.allclose(sure, next_token_certainty(model, TEXTS[:5], tokens=32)[0], atol=1e-4)
        assert torch.allclose(believed.shares, answer_probabilities(model, ANSWERS).shares, atol=1e-4)
    assert not torch.allclose(said.shares, believed.shares, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "olmo2", "opt", "falcon"])
def test_swap_of_all_rows_copies_the_weight_in_every_layout(tiny, family):
    """Swapping all rows copies the whole weight, whether or not it is stored transposed."""
    model, other = load_model(tiny(family)), load_model(tiny(family, seed=1))
    linear, theirs = (m.part(m.layers, m.architecture.neurons) for m in (model, other))
    with swap_neuron_weights(model, neuron_output_vectors(other), range(len(neuron_output_vectors(other)))):
        assert torch.equal(linear.weight, theirs.weight)
    assert not torch.equal(linear.weight, theirs.weight)


def test_neurons_of_unrelated_models_are_not_compared(folder, tiny):
    stranger = {"base": lively(folder), "post": load_model(tiny("gpt_neox", seed=3))}
    found = list(study.run(stranger, INPUTS, replace(FAST, tested=0, swaps=1)))
    assert one(found, "neuron_match", stage="post", other_stage="base").value < 0.2
    for metric in ("neuron_overlap", "swap_effect"):
        lost = rows(found, metric, stage="post", other_stage="base")
        assert lost
        assert all(math.isnan(row.value) and "ancestry" in row.note for row in lost)
    llama = {"base": lively(folder), "post": load_model(tiny("llama"))}
    found = list(study.run(llama, INPUTS, replace(FAST, tested=0)))
    assert "differ" in one(found, "neuron_match", stage="post", other_stage="base").note
    assert not math.isnan(one(found, "confidence_gap", stage="post", other_stage="base", of="entropy").value)


def test_many_stages_are_swapped_with_neighbours_and_the_first():
    order = ["a", "b", "c", "d", "e"]
    assert donor_stages("b", order[:3], 4) == ["a", "c"]
    assert donor_stages("a", order, 4) == ["b", "c", "d", "e"]
    assert donor_stages("c", order, 4) == ["a", "b", "d"]
    assert donor_stages("e", order, 4) == ["a", "d"]


def test_rejects_too_few_stages_texts_or_settings(pair):
    with pytest.raises(BadInput, match="at least two stages"):
        list(study.run({"base": pair["base"]}, INPUTS, FAST))
    with pytest.raises(BadInput, match="at least two texts"):
        list(study.run(pair, replace(INPUTS, neutral=INPUTS.neutral[:1]), FAST))
    with pytest.raises(BadInput, match="two different answers"):
        list(study.run(pair, replace(INPUTS, questions=(*ANSWERS, Answer("a", "b", "b", "a"))), FAST))
    with pytest.raises(BadInput, match="counts"):
        ConfidenceSettings(bins=0)


def test_interval_of_an_error_contains_the_error():
    """Resampling increases an error, but its interval is centred on it."""
    number = BootstrapEstimate(0.1, torch.linspace(0.12, 0.2, 200, dtype=torch.float64), 50, 50)
    low, high = number.ends
    assert low < 0.1 < high
