"""Contract of the plug-ins in steering/methods: declared attributes, the form of the vectors, their scale and sign, determinism."""

from types import ModuleType

import pytest
import torch

from ontogeny import plugins
from ontogeny.interventions import Ablate, Add
from ontogeny.models.model import load_model
from ontogeny.sites import Site
from ontogeny.steering.methods import SteeringVectors, TrainingActivations

METHODS = plugins.list_plugins("steering/methods")
SITES = {
    "resid": tuple(Site("resid", layer) for layer in range(3)),
    "head": tuple(Site("head", layer, head) for layer in (1, 2) for head in range(4)),
}
WIDTH = {"resid": 32, "head": 8}


def data(sign: float = 1.0, scale: float = 1.0, seed: int = 0) -> TrainingActivations:
    """A label along one axis of each site, with pairs that differ along it."""
    g, y = torch.Generator().manual_seed(seed), torch.arange(80) % 2 == 0
    activations = {}
    for part, sites in SITES.items():
        x, axis = torch.randn(len(sites), 80, WIDTH[part], generator=g), torch.ones(WIDTH[part])
        activations[part] = scale * (x + 2 * sign * y[:, None] * axis / axis.norm())
    x = activations["resid"].double()
    groups = torch.arange(80) // 2
    return TrainingActivations(y, groups, SITES, activations, x[:, y] - x[:, ~y], torch.arange(40) // 2)


def module(name: str) -> ModuleType:
    return plugins.load_plugin("steering/methods", name)


def fit(name: str, **options: float) -> SteeringVectors:
    return module(name).fit(data(**options), ks=(1, 3), where="last")


def flat(vectors: SteeringVectors) -> torch.Tensor:
    return torch.cat([vector for shifts in vectors.shifts.values() for _, vector in shifts])


def test_methods_are_registered() -> None:
    assert {"ablate", "caa", "iti", "tracing_vector"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_attributes_and_vectors_agree(name: str) -> None:
    method, vectors = module(name), fit(name)
    assert method.__doc__
    assert (method.part in SITES, method.choice_axis in ("site", "k")) == (True, True)
    assert (vectors.choice_axis, vectors.is_ablation) == (method.choice_axis, method.is_ablation)
    assert vectors.from_pairs <= method.needs_pairs
    assert list(vectors.shifts) == (["1", "3"] if method.choice_axis == "k" else [str(s) for s in SITES[method.part]])
    for choice, shifts in vectors.shifts.items():
        assert len(shifts) == (int(choice) if method.choice_axis == "k" else 1)
        for site, vector in shifts:
            assert site in SITES[method.part]
            assert (vector.shape, vector.dtype) == ((WIDTH[method.part],), torch.float32)
            assert vector.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_fit_is_deterministic_and_points_to_the_positive_class(name: str) -> None:
    vectors = fit(name)
    assert torch.equal(flat(vectors), flat(fit(name)))
    assert not torch.equal(flat(vectors), flat(fit(name, seed=1)))
    for sign in (1.0, -1.0):
        assert all(
            sign * float(vector.sum()) > 0 for shifts in fit(name, sign=sign).shifts.values() for _, vector in shifts
        )


@pytest.mark.parametrize("name", [name for name in METHODS if getattr(module(name), "is_scale_free", True)])
def test_vectors_scale_with_the_activations(name: str) -> None:
    torch.testing.assert_close(flat(fit(name, scale=4.0)), 4 * flat(fit(name)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_edits_fit_the_model_and_alpha_zero_changes_nothing(name: str, tiny) -> None:
    model, vectors = load_model(tiny("gpt_neox")), fit(name)
    for choice in vectors.shifts:
        edits = vectors.edits(model, choice, 2.0)
        assert all(isinstance(edit.what, Ablate if vectors.is_ablation else Add) for edit in edits)
        assert all(edit.what.is_noop for edit in vectors.edits(model, choice, 0.0))
