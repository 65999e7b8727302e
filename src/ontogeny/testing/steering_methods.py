"""Contract of a steering method: declared attributes, the form of the vectors, their scale and sign, determinism."""

from types import ModuleType

import torch

from ontogeny import plugins
from ontogeny.interventions import Ablate, Add
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.methods import SteeringVectors, TrainingActivations
from ontogeny.testing._contract import Clause, run_clauses

_SITES = {
    "resid": tuple(Site("resid", layer) for layer in range(3)),
    "head": tuple(Site("head", layer, head) for layer in (1, 2) for head in range(4)),
}
_WIDTH = {"resid": 32, "head": 8}


def _data(sign: float = 1.0, scale: float = 1.0, seed: int = 0) -> TrainingActivations:
    """A label along one axis of each site, with pairs that differ along it."""
    g, y = torch.Generator().manual_seed(seed), torch.arange(80) % 2 == 0
    activations = {}
    for part, sites in _SITES.items():
        x, axis = torch.randn(len(sites), 80, _WIDTH[part], generator=g), torch.ones(_WIDTH[part])
        activations[part] = scale * (x + 2 * sign * y[:, None] * axis / axis.norm())
    x = activations["resid"].double()
    groups = torch.arange(80) // 2
    return TrainingActivations(y, groups, _SITES, activations, x[:, y] - x[:, ~y], torch.arange(40) // 2)


def _module(name: str) -> ModuleType:
    return plugins.load_plugin("steering/methods", name)


def _fit(name: str, *, sign: float = 1.0, scale: float = 1.0, seed: int = 0) -> SteeringVectors:
    vectors: SteeringVectors = _module(name).fit(_data(sign, scale, seed), ks=(1, 3), where="last")
    return vectors


def _flat(vectors: SteeringVectors) -> torch.Tensor:
    return torch.cat([vector for shifts in vectors.shifts.values() for _, vector in shifts])


def has_attributes_that_agree_with_its_vectors(name: str) -> None:
    method, vectors = _module(name), _fit(name)
    assert method.__doc__
    assert (method.part in _SITES, method.choice_axis in ("site", "k")) == (True, True)
    assert (vectors.choice_axis, vectors.is_ablation) == (method.choice_axis, method.is_ablation)
    assert vectors.from_pairs <= method.needs_pairs
    assert list(vectors.shifts) == (["1", "3"] if method.choice_axis == "k" else [str(s) for s in _SITES[method.part]])
    for choice, shifts in vectors.shifts.items():
        assert len(shifts) == (int(choice) if method.choice_axis == "k" else 1)
        for site, vector in shifts:
            assert site in _SITES[method.part]
            assert (vector.shape, vector.dtype) == ((_WIDTH[method.part],), torch.float32)
            assert vector.isfinite().all()


def is_deterministic_and_points_to_the_positive_class(name: str) -> None:
    vectors = _fit(name)
    assert torch.equal(_flat(vectors), _flat(_fit(name)))
    assert not torch.equal(_flat(vectors), _flat(_fit(name, seed=1)))
    for sign in (1.0, -1.0):
        assert all(
            sign * float(vector.sum()) > 0 for shifts in _fit(name, sign=sign).shifts.values() for _, vector in shifts
        )


def scales_with_the_activations(name: str) -> None:
    if not getattr(_module(name), "is_scale_free", True):
        return
    torch.testing.assert_close(_flat(_fit(name, scale=4.0)), 4 * _flat(_fit(name)), rtol=1e-3, atol=1e-3)


def gives_edits_that_fit_a_model(name: str, model: Model) -> None:
    """And none at alpha 0."""
    vectors = _fit(name)
    for choice in vectors.shifts:
        edits = vectors.edits(model, choice, 2.0)
        assert all(isinstance(edit.what, Ablate if vectors.is_ablation else Add) for edit in edits)
        assert all(edit.what.is_noop for edit in vectors.edits(model, choice, 0.0))


STEERING_METHOD_CLAUSES: tuple[Clause, ...] = (
    has_attributes_that_agree_with_its_vectors,
    is_deterministic_and_points_to_the_positive_class,
    scales_with_the_activations,
)


def check_steering_method(name: str, model: Model | None = None) -> None:
    """Check a steering method against its contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.steering.methods`.
        model: A model of 2 blocks, 4 heads and 32 dimensions, which the edits must fit; not checked by default.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: there is no such method.
    """
    run_clauses("steering method", name, STEERING_METHOD_CLAUSES, name)
    if model is not None:
        run_clauses("steering method", name, (gives_edits_that_fit_a_model,), name, model)
