"""Confidence study: a planted entropy neuron is found in its stage only, and its swap explains the gap."""

import math
from dataclasses import replace

import pytest

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import load_model
from ontogeny.studies import confidence as study
from ontogeny.studies.confidence.settings import ConfidenceSettings
from ontogeny.studies.confidence.stage_pairs import donor_stages
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
