"""Safety fine-tuning: soft tokens keep to their ball and help, scores have the right side, batches refuse what they should."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ontogeny.studies.safety_fine_tuning import PRESETS
from ontogeny.studies.safety_fine_tuning import _measures as measures
from ontogeny.studies.safety_fine_tuning._training import FineTuning, as_model, new_network
from ontogeny.training.batches import PreferenceBatch, UnlearningBatch
from ontogeny.worlds import operators

SETTINGS = replace(PRESETS["smoke"], attack_steps=8, tune_batch=20)
WORLD = operators.make()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return as_model(new_network(SETTINGS, WORLD), WORLD)


def test_soft_tokens_stay_in_their_ball_and_raise_the_likelihood(model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = measures.evaluation_sets(SETTINGS, WORLD, 0)["unsafe"]
    losses, norms = [], []
    project, entropy = measures._in_ball, measures.cross_entropy

    def watched(added, radius, **how):
        result = project(added, radius, **how)
        norms.append(float(result.flatten(1).norm(dim=1).max() / radius))
        return result

    def noted(*args, **how):
        loss = entropy(*args, **how)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(measures, "_in_ball", watched)
    monkeypatch.setattr(measures, "cross_entropy", noted)
    right = measures.soft_token_attack(model, prompts, SETTINGS, seed=0, optimise=True)
    assert max(norms) <= 1 + 1e-5
    assert losses[-1] < losses[0]
    assert right.shape == (len(prompts),)
    measures.soft_token_attack(model, prompts, SETTINGS, seed=0, optimise=False)
    assert norms[-1] == pytest.approx(1), "the null has the whole radius"


def test_an_attack_between_the_centres_has_their_scores() -> None:
    def reading(at: float) -> measures.Reading:
        streams = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(1)) / 100
        streams[..., 0] += at
        return measures.Reading(torch.zeros(40), torch.zeros(40), streams)

    readings = {"safe": reading(0), "unsafe": reading(1), "like unsafe": reading(1), "like safe": reading(0)}
    scores = measures.mean_scores(readings)
    assert scores["like unsafe"] == pytest.approx(1, abs=0.1)
    assert scores["like safe"] == pytest.approx(-1, abs=0.1)
    assert measures.separation(readings)[-1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("method", ["SSFT", "DPO", "unlearning"])
def test_batches_prefer_refusals_of_unsafe_prompts_only(method: str) -> None:
    batch = FineTuning(method, 1e-3)._batches(SETTINGS, WORLD, 0)(1)
    preferred, other = batch, None
    if isinstance(batch, PreferenceBatch):
        preferred, other = batch.chosen, batch.rejected
    if isinstance(batch, UnlearningBatch):
        preferred, other = batch.retain, batch.forget
    unsafe = {WORLD.vocabulary[name] for kind in ("unsafe", "maybe") for name in WORLD.operators(kind)}
    refused = preferred.ids[:, -1].eq(WORLD.refusal)
    assert refused.sum() == (4 if method == "SSFT" else 10)
    assert all(set(row.tolist()) <= unsafe for row in preferred.ids[refused, 1:3])
    assert preferred.mask.sum() == len(preferred.ids) * WORLD.config.operand
    if other is not None:
        assert other.ids[:, -1].eq(WORLD.refusal).equal(~refused)
        assert np.array_equal(other.ids[:, :-6], preferred.ids[:, :-6])
    null = FineTuning(method, 1e-3, shuffled=True)._batches(SETTINGS, WORLD, 0)(1)
    ids = (
        null.chosen if isinstance(null, PreferenceBatch) else null.retain if isinstance(null, UnlearningBatch) else null
    ).ids
    assert ids[:, -1].eq(WORLD.refusal).sum() == refused.sum()
    assert not ids[:, -1].eq(WORLD.refusal).equal(refused)
