"""The `official` steering methods against scripts that import nothing of ours, given the same split.

Sources, written down again here: `utils.py` and `validation/validate_2fold.py` of likenneth/honest_llama @ 2c6b217 (scikit-learn's
logistic regression with C = 1 on raw activations, accuracy on validation rows, numpy's argsort backwards, unit difference of the class
means times the spread); `src/generate_steering_vector.py` of ChnQ/TracingLLM @ bf8d38a (class means of the first half of the rows).
"""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ontogeny.errors import SingleClassError
from ontogeny.sites import Site
from ontogeny.steering.methods import (
    TrainingActivations,
    iti,
    iti_official,
    tracing_vector,
    tracing_vector_official,
)

LAYERS, HEADS, WIDTH = 3, 4, 8


def activations(seed: int, n: int = 160) -> TrainingActivations:
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, generator=g) < 0.5
    x = torch.randn(LAYERS * HEADS, n, WIDTH, generator=g) * torch.logspace(-1, 1, WIDTH)
    strength = torch.rand(LAYERS * HEADS, 1, generator=g)
    x[..., 3] += strength * y
    heads = tuple(Site("head", 1 + i // HEADS, i % HEADS) for i in range(LAYERS * HEADS))
    stream = tuple(Site("resid", i + 1) for i in range(LAYERS * HEADS))
    return TrainingActivations(y, torch.arange(n), {"head": heads, "resid": stream}, {"head": x, "resid": x})


def published_heads(x: np.ndarray, y: np.ndarray, validation: np.ndarray, count: int) -> list[int]:
    accuracy = []
    for head in x:
        probe = LogisticRegression(random_state=42, max_iter=1000).fit(head[~validation], y[~validation])
        accuracy.append(float((probe.predict(head[validation]) == y[validation]).mean()))
    return np.argsort(np.array(accuracy))[::-1][:count].tolist()


@pytest.mark.parametrize("seed", range(4))
def test_official_iti_has_the_heads_and_vectors_of_its_code(seed: int) -> None:
    data = activations(seed)
    validation = torch.rand(len(data.y), generator=torch.Generator().manual_seed(seed)) < 0.2
    x, y = data.activations["head"].numpy(), data.y.numpy()
    expected = published_heads(x, y, validation.numpy(), 5)
    shifts = iti_official.fit(data, ks=(5,), validation=validation).shifts["5"]
    assert [data.sites["head"].index(site) for site, _ in shifts] == expected
    for i, (_, vector) in zip(expected, shifts, strict=True):
        axis = x[i][y].mean(0) - x[i][~y].mean(0)
        axis = axis / np.linalg.norm(axis)
        wanted = torch.tensor(axis * (x[i] @ axis).std(ddof=1))
        assert float(torch.nn.functional.cosine_similarity(vector.double(), wanted, dim=0)) >= 0.9999
        assert float(vector.norm()) == pytest.approx(float(wanted.norm()), rel=1e-4)


def test_official_iti_ranks_equal_heads_from_the_last() -> None:
    data = activations(0)
    x = data.activations["head"].clone()
    x[5] = x[2]
    twins = TrainingActivations(data.y, data.groups, data.sites, {"head": x})
    order = [site for site, _ in iti_official.fit(twins, ks=(LAYERS * HEADS,)).shifts[str(LAYERS * HEADS)]]
    assert order.index(data.sites["head"][5]) < order.index(data.sites["head"][2])
    ours = [site for site, _ in iti.fit(twins, ks=(LAYERS * HEADS,)).shifts[str(LAYERS * HEADS)]]
    assert ours.index(data.sites["head"][2]) < ours.index(data.sites["head"][5])


def test_official_tracing_vector_has_the_vectors_of_its_code() -> None:
    data = activations(1)
    x, y = data.activations["resid"], data.y
    half = int(len(y) * 0.5)
    official, ours = (of.fit(data).shifts for of in (tracing_vector_official, tracing_vector))
    apart = []
    for i, site in enumerate(data.sites["resid"]):
        axis = x[i][:half][y[:half]].mean(0) - x[i][:half][~y[:half]].mean(0)
        axis = axis / axis.norm()
        wanted = (x[i] @ axis).std() * axis
        ((_, vector),), ((_, other),) = official[str(site)], ours[str(site)]
        assert float(torch.nn.functional.cosine_similarity(vector, wanted, dim=0)) >= 0.9999
        torch.testing.assert_close(vector, wanted, rtol=1e-3, atol=1e-5)
        apart.append(float(torch.nn.functional.cosine_similarity(vector, other, dim=0)))
    assert min(apart) < 0.99


def test_first_half_of_one_class_is_an_error() -> None:
    data = activations(2)
    order = data.y.int().argsort(stable=True)
    x = data.activations["resid"][:, order]
    y = torch.arange(len(order)) >= len(order) // 2
    with pytest.raises(SingleClassError, match="first half of the rows"):
        tracing_vector_official.fit(TrainingActivations(y, data.groups, data.sites, {"resid": x}))
