"""The tracing paper's protocol (arXiv:2402.19465) end to end on a real small model, against a script that imports nothing of ours.

Source: the method section and `src/` of ChnQ/TracingLLM @ bf8d38a, written down again here: block outputs at the last token, one
text at a time; z-score over all rows; first 80 % to train; scikit-learn's default logistic regression; normalised HSIC with two
inverses at width 50, X = the first block's output.
"""

import csv

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = 240


@pytest.fixture(scope="module")
def rows(shared):
    with (shared / "tracing_trustworthiness/confaide.csv").open(encoding="utf-8") as handle:
        return [(row["statement"], int(row["label"])) for row in csv.DictReader(handle)][:ROWS]


@pytest.fixture(scope="module")
def published(stories260k, rows):
    """accuracy, I(T,X) and I(T,Y) of each block."""
    model, tokenizer = (c.from_pretrained(stories260k) for c in (AutoModelForCausalLM, AutoTokenizer))
    taken: list[list[np.ndarray]] = []
    for block in model.model.layers:
        layer: list[np.ndarray] = []
        taken.append(layer)
        block.register_forward_hook(lambda _m, _i, o, layer=layer: layer.append(o[0, -1].numpy().copy()))
    with torch.no_grad():
        for statement, _ in rows:
            model(**tokenizer(statement, return_tensors="pt"))
    y = np.array([label for _, label in rows])
    cut = round(0.8 * len(y))
    layers = [np.stack(layer).astype(np.float64) for layer in taken]
    layers = [(x - x.mean(0)) / x.std(0, ddof=1) for x in layers]
    accuracy = []
    for x in layers:
        probe = LogisticRegression(tol=1e-8, max_iter=5000).fit(x[:cut], y[:cut])
        accuracy.append(float((probe.predict(x[cut:]) == y[cut:]).mean()))
    ty = [nhsic(x[:cut], y[:cut, None].astype(float)) for x in layers]
    return accuracy, [nhsic(x[:cut], layers[0][:cut]) for x in layers], ty


def nhsic(a, b, sigma=50.0, ridge=1e-5):
    """One-sided centring and two inverses, as transcribed, in float64."""
    m, product = len(a), np.eye(len(a))
    for z in (a, b):
        square = ((z[:, None] - z[None]) ** 2).sum(-1)
        kernel = np.exp(-square / (2 * sigma**2 * z.shape[1])) @ (np.eye(m) - np.ones((m, m)) / m)
        product = product @ kernel @ np.linalg.inv(kernel + ridge * m * np.eye(m))
    return float(np.trace(product))


@pytest.fixture(scope="module")
def traced(stories260k, rows, tmp_path_factory):
    from ontogeny import Concept, Lineage, trace
    from ontogeny.measurements.settings import TraceSettings

    folder = tmp_path_factory.mktemp("paper")
    with (folder / "confaide.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("statement", "label"), *rows])
    settings = TraceSettings(sites="resid", protocol="paper", fits=("logistic", "mass_mean"), untrained=False)
    lineage = Lineage.open(stories260k)
    return trace(lineage, [Concept.from_file(folder / "confaide.csv")], folder / "run", settings)


def ours(run, metric, method):
    found = run.records(f"metric = '{metric}' and method = '{method}' and control is null and layer > 0").sort_values(
        "layer"
    )
    return found.value.tolist()


def test_accuracy_within_one_test_item(published, traced):
    one = 1 / (ROWS - round(0.8 * ROWS))
    assert np.abs(np.array(ours(traced, "accuracy", "logistic")) - published[0]).max() <= one + 1e-9
    assert max(published[0]) > min(published[0])  # layers differ, so an equal constant would not do


@pytest.mark.parametrize(("metric", "which"), [("nhsic_tx", 1), ("nhsic_ty", 2)])
def test_dependence_as_transcribed(published, traced, metric, which):
    # The reference starts from its own activations: float32 forwards that differ in the last digits.
    np.testing.assert_allclose(ours(traced, metric, "gaussian_50"), published[which], rtol=2e-5)
    assert len(set(np.round(published[which], 3))) > 1
