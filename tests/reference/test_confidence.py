"""Calibration against scikit-learn, overlaps against scipy, entropy and the two entropy-neuron criteria against plain numpy."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from scipy.stats import hypergeom
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from ontogeny.metrics.calibration import brier_score, expected_calibration_error, reliability_bins
from ontogeny.models.model import load_model
from ontogeny.neurons.entropy_neurons import neuron_overlap, neuron_statistics
from ontogeny.neurons.last_layer_cache import entropy_of_logits


@pytest.fixture
def asked():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 700)
    return sure, rng.random(700) < 0.3 + 0.6 * sure


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_reliability_and_ece(asked, bins):
    sure, right = asked
    share, mean = calibration_curve(right, sure, n_bins=bins)
    ours = reliability_bins(torch.tensor(sure), torch.tensor(right), bins=bins)
    assert [b.accuracy for b in ours] == pytest.approx(share)
    assert [b.confidence for b in ours] == pytest.approx(mean)
    heavy = np.histogram(sure, np.linspace(0, 1, bins + 1))[0]
    by_hand = (heavy[heavy > 0] * np.abs(share - mean)).sum() / len(sure)
    assert float(expected_calibration_error(torch.tensor(sure), torch.tensor(right), bins=bins)) == pytest.approx(
        by_hand
    )


def test_brier(asked):
    sure, right = asked
    shares = torch.tensor(np.stack([sure, 1 - sure], 1))
    ours = brier_score(shares, torch.tensor(~right).long())
    # Over both options the binary score counts twice.
    assert float(ours.mean()) == pytest.approx(2 * brier_score_loss(right, sure))


@pytest.mark.parametrize(("size", "shared", "among"), [(10, 0, 512), (10, 3, 512), (10, 10, 40), (25, 4, 60)])
def test_overlap(size, shared, among):
    ours = neuron_overlap(list(range(size)), list(range(size - shared, 2 * size - shared)), among=among)
    peer = hypergeom(among, size, size)
    assert ours.p == pytest.approx(peer.sf(shared - 1))
    high = peer.ppf(0.975)
    assert ours.chance_high == pytest.approx(high / (2 * size - high))


def test_entropy_of_scores():
    scores = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)) * 4
    p = torch.softmax(scores.double(), -1).numpy()
    assert entropy_of_logits(scores).numpy() == pytest.approx(scipy_entropy(p, axis=-1), rel=1e-5)
    forbidden = scores.clone()
    forbidden[:, 0] = -torch.inf
    assert bool(torch.isfinite(entropy_of_logits(forbidden)).all())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_criteria_of_entropy_neurons(tiny, family):
    """Written out from arXiv:2504.02904 (logit variance) and arXiv:2406.16254 (null space), on the weights as they are in the files."""
    folder = tiny(family)
    network = load_model(folder).network
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    if family == "gpt2":
        w, gain, u = (
            state["transformer.h.1.mlp.c_proj.weight"],
            state["transformer.ln_f.weight"],
            state["lm_head.weight"],
        )
    else:
        w, gain, u = state["model.layers.1.mlp.down_proj.weight"].T, state["model.norm.weight"], state["lm_head.weight"]
    u = u * gain
    u = u - u.mean(0)
    if family == "gpt2":  # LayerNorm takes the mean out
        w, u = w - w.mean(1, keepdims=True), u - u.mean(1, keepdims=True)
    cosines = (w / np.linalg.norm(w, axis=1, keepdims=True)) @ (u / np.linalg.norm(u, axis=1, keepdims=True)).T
    left, _, _ = np.linalg.svd(u.T, full_matrices=False)
    null = left[:, -(3 + (family == "gpt2")) :]
    ours = neuron_statistics(load_model(folder))
    assert ours.norm.numpy() == pytest.approx(np.linalg.norm(w, axis=1), rel=1e-5)
    assert ours.variance.numpy() == pytest.approx(cosines.var(1), rel=1e-4)
    assert ours.null_share.numpy() == pytest.approx(
        np.linalg.norm(w @ null, axis=1) / np.linalg.norm(w, axis=1), abs=1e-5
    )
