"""A small trained model and real texts: refusal and confidence give all rows, and only a planted entropy neuron is confirmed.

`pytest -s tests/unit/test_confidence_real.py` prints the numbers that docs/log.md names.
"""

import copy
import gzip
import json
import math
from dataclasses import replace

import pytest
import torch

from ontogeny.data.examples import Answer
from ontogeny.jobs.compare.inputs import StudyInputs
from ontogeny.models.model import load_model, output_weight
from ontogeny.neurons.entropy_neurons import final_norm, neuron_statistics, output_and_unembedding
from ontogeny.neurons.mean_ablation import mean_ablate
from ontogeny.sites import Site
from ontogeny.studies import confidence, refusal
from ontogeny.studies.confidence.settings import ConfidenceSettings
from ontogeny.studies.refusal.settings import RefusalSettings
from tests.studies.test_refusal import one, requests, rows

PLANTED = 20


@pytest.fixture(scope="module")
def model(stories260k):
    return load_model(stories260k)


@pytest.fixture(scope="module")
def stories(shared):
    path = shared / "text/tinystories_sample.jsonl.gz"
    if not path.is_file():
        pytest.skip("needs the sample of TinyStories")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(12), strict=False)]


@torch.no_grad()
def perturbed(model, *, noise):
    """A later stage of the same model: noise on every weight."""
    later = replace(model, network=copy.deepcopy(model.network))
    generator = torch.Generator().manual_seed(0)
    for parameter in later.network.parameters():
        parameter.add_(noise * parameter.std(unbiased=False) * torch.randn(parameter.shape, generator=generator))
    return later


def test_only_the_planted_entropy_neuron_is_confirmed(model, stories):
    bare = mean_ablate(model, stories, count=4, each=3, tokens=48)
    assert bare.confirmed == []
    planted = replace(model, network=copy.deepcopy(model.network))
    _, u = output_and_unembedding(planted)
    direction = torch.linalg.eigh(u.T @ u)[1][:, 0].float()
    row = output_weight(planted, Site("mlp", planted.layers))
    before = row[PLANTED].clone()
    row[PLANTED] = 12 * before.norm() * direction
    found = mean_ablate(planted, stories, count=4, each=3, tokens=48)
    mine = next(e for e in found.candidates if e.neuron == PLANTED)
    print(f"planted: {mine.size:.3f} nats, indirect {mine.indirect:.2f}; least {found.least:.3f}")
    print(f"without: largest indirect share {max(e.indirect for e in bare.candidates):.2f}")
    assert found.confirmed == [PLANTED]
    # The smallest singular direction of a real W_U of 64 dimensions is not quite unread.
    assert mine.indirect > 0.5 > 4 * max(e.indirect for e in bare.candidates)
    assert mine.size > 3 * found.least
    assert final_norm(planted).centres is False
    assert neuron_statistics(planted).null_dimensions == 6


def test_refusal_rows_on_real_instructions(model, shared):
    folder = shared / "refusal/harmful_advbench.jsonl"
    if not folder.is_file():
        pytest.skip("needs AdvBench")
    with folder.open(encoding="utf-8") as lines:
        harmful = [json.loads(line)["instruction"] for line, _ in zip(lines, range(30), strict=False)]
    with (shared / "harmless_instructions/self_instruct_seed_tasks.jsonl").open(encoding="utf-8") as lines:
        harmless = [json.loads(line)["instruction"] for line, _ in zip(lines, range(30), strict=False)]
    settings = RefusalSettings(
        template="User: {}\nAssistant:",
        positions=2,
        depth=0.4,
        limits=(12, 4, 8),
        tokens=3,
        nulls=2,
        phrase_nulls=1,
        samples=200,
        # A model of 260,000 parameters does not refuse: no vector of it passes the filters of the method.
        max_kl=math.inf,
        min_induced=-math.inf,
    )
    stages = {"base": model, "post": perturbed(model, noise=0.05)}
    found = list(refusal.run(stages, requests(harmful, harmless), settings))
    same = one(found, "refusal_cosine", stage="post", other_stage="base", held="shared", control=None)
    assert 0.5 < same.low < same.value < same.high < 1
    effects = rows(found, "refusal_effect", control=None)
    assert len(effects) == 2 * 2 * 2 * 2
    assert all(not math.isnan(row.value) and row.low <= row.value <= row.high for row in effects)


def test_perturbed_stage_is_less_confident(model, stories):
    asked = [
        Answer(f"Once upon a time, there was a {who} named {name}.", f" {right}", f" {wrong}", name)
        for who, right, wrong, names in (
            ("girl", "She", "He", ("Lily", "Mia", "Sue")),
            ("boy", "He", "She", ("Tim", "Tom", "Max")),
        )
        for name in names
    ]
    stages = {"base": model, "post": perturbed(model, noise=0.2)}
    few = ConfidenceSettings(tokens=48, count=4, tested=0, swaps=2, samples=200)
    found = list(confidence.run(stages, StudyInputs(neutral=tuple(stories), questions=tuple(asked)), few))
    gap = one(found, "confidence_gap", stage="post", other_stage="base", of="entropy")
    assert gap.low > 0  # noise makes a model less sure
    assert one(found, "neuron_match", stage="post", other_stage="base").value > 0.95
    assert one(found, "question_accuracy", stage="base").value == 1
    iou = one(found, "neuron_overlap", stage="post", other_stage="base", by="variance", control=None)
    assert (
        iou.value
        > one(found, "neuron_overlap", stage="post", other_stage="base", by="variance", control="random_set").high
    )
