"""Every probe in the folder meets the contract in `ontogeny.testing`; the planted problem is not trivial, and violations are detected."""

from types import ModuleType, SimpleNamespace

import pytest
import torch

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.probes import Probe, mass_mean
from ontogeny.testing import PROBE_CLAUSES, check_probe
from ontogeny.testing.probes import planted_problem

FITS = plugins.list_plugins("probes")


def test_folder_has_the_known_probes() -> None:
    assert {"logistic", "mass_mean", "pca", "leace", "ridge"} <= set(FITS)


@pytest.mark.parametrize("clause", PROBE_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", FITS)
def test_probe_meets_the_contract(name: str, clause: object) -> None:
    assert callable(clause)
    clause(plugins.load_plugin("probes", name))


def test_planted_problem_is_not_trivial() -> None:
    """The largest variation is not the concept, and the readout is not the shift."""
    problem = planted_problem()
    largest = torch.linalg.svd(problem.x - problem.x.mean(1, keepdim=True), full_matrices=False)[2][:, 0]
    assert torch.cosine_similarity(largest, problem.shift, dim=-1).abs().max() < 0.7
    assert torch.cosine_similarity(problem.readout, problem.shift, dim=-1).max() < 0.95


def test_a_saved_probe_without_a_direction_is_refused() -> None:
    with pytest.raises(BadInput, match="direction"):
        Probe.from_tensors({"bias": torch.zeros(1, 1)})


def test_a_probe_that_breaks_its_contract_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that turns its direction round."""

    def fit(x: torch.Tensor, y: torch.Tensor, **given: object) -> Probe:
        found = mass_mean.fit(x, y, groups=given["groups"])  # type: ignore[arg-type]
        return Probe(-found.direction, -found.bias, found.facts)

    attributes = {name: getattr(mass_mean, name) for name in ("targets", "needs_pairs", "recovers", "recovers_from")}
    backwards = SimpleNamespace(fit=fit, __doc__="Backwards.", **attributes)
    load = plugins.load_plugin

    def loaded(folder: str, name: str) -> ModuleType:
        return backwards if name == "backwards" else load(folder, name)  # type: ignore[return-value]

    monkeypatch.setattr(plugins, "load_plugin", loaded)
    with pytest.raises(AssertionError) as error:
        check_probe("backwards")
    assert error.value.__notes__ == ["the probe backwards breaks its contract: recovers a planted direction"]
