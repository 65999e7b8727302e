"""Contract of a probe: it recovers a planted direction, streams, saves, rejects invalid input, and ignores the order of rows."""

from dataclasses import dataclass
from types import ModuleType

import safetensors.torch
import torch
from torch import Tensor

from ontogeny import plugins
from ontogeny.errors import BadInput, SingleClassError
from ontogeny.probes import Probe
from ontogeny.testing._contract import Clause, rejects, run_clauses

_SITES, _D = 3, 12


@dataclass(frozen=True)
class PlantedProblem:
    """Activations with a planted direction, and what a probe should find."""

    x: Tensor
    y: Tensor
    groups: Tensor
    pairs: Tensor | None
    shift: Tensor
    """[site, d]: the vector added per unit of y."""
    readout: Tensor
    """[site, d]: its best linear readout under this noise."""

    def fit(self, module: ModuleType, rows: Tensor | None = None) -> Probe:
        """The probe of a module, fitted to some rows."""
        rows = torch.arange(len(self.y)) if rows is None else rows
        pairs = None if self.pairs is None else self.pairs[rows]
        probe: Probe = module.fit(self.x[:, rows], self.y[rows], groups=self.groups[rows], pairs=pairs)
        return probe


def planted_problem(
    kind: str = "binary", *, pairs: bool = False, n: int = 4000, d: int = _D, seed: int = 0
) -> PlantedProblem:
    """Anisotropic noise far from the origin, one direction of it larger than the concept, unequal classes.

    Args:
        kind: `binary` or `number`.
        pairs: Whether examples come in contrast pairs.
        n: Number of examples.
        d: Dimensions.
    """
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(_SITES, d, d, generator=g))[0]
    spread = torch.linspace(0.5, 2.0, d)
    spread[0] = 6.0
    shift = torch.randn(_SITES, d, generator=g)
    shift = 2.5 * shift / shift.norm(dim=1, keepdim=True)
    y = torch.rand(n, generator=g) < 0.35
    noise = torch.randn(_SITES, n, d, generator=g)
    if pairs:
        y = torch.arange(n) % 2 == 0
        shared = noise[:, : n // 2].repeat_interleave(2, 1)
        noise = shared + 0.1 * noise
    number = y.float() if kind == "binary" else torch.randn(n, generator=g)
    x = 5.0 + (noise * spread) @ axes.mT + number[None, :, None] * shift[:, None]
    covariance = axes * spread.square() @ axes.mT
    readout = torch.linalg.solve(covariance, shift[..., None])[..., 0]
    group = torch.arange(n) // 2
    return PlantedProblem(x, y if kind == "binary" else number, group, group if pairs else None, shift, readout)


def _kinds(module: ModuleType) -> list[str]:
    return sorted(module.targets)


def _target(kind: str, y: Tensor) -> Tensor:
    return y.long() if kind == "classes" else y


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.cosine_similarity(a, b, dim=-1)


def declares_its_properties(module: ModuleType) -> None:
    assert (module.__doc__ or "").strip().splitlines()[0].endswith((".", ")"))
    assert module.targets
    assert module.targets <= {"binary", "classes", "number"}
    assert isinstance(module.needs_pairs, bool)
    assert module.recovers in {"shift", "readout"}
    assert module.recovers_from in {"labels", "pairs"}


def recovers_a_planted_direction(module: ModuleType) -> None:
    for kind in _kinds(module):
        if kind == "classes":
            continue
        problem = planted_problem(kind, pairs=module.recovers_from == "pairs")
        fitted = problem.fit(module)
        truth = problem.shift if module.recovers == "shift" else problem.readout
        assert fitted.direction.shape == (_SITES, _D, 1)
        assert _cosine(fitted.direction[..., 0], truth).min() > 0.97
        scores = fitted.scores(problem.x)[..., 0]
        if kind == "binary":
            assert (scores[:, problem.y].mean(1) > scores[:, ~problem.y].mean(1)).all()


def has_one_direction_for_each_class(module: ModuleType) -> None:
    if "classes" not in module.targets:
        return
    g = torch.Generator().manual_seed(1)
    y = torch.randint(0, 3, (600,), generator=g)
    means = 3 * torch.randn(_SITES, 3, _D, generator=g)
    x = means[:, y] + torch.randn(_SITES, 600, _D, generator=g)
    fitted = module.fit(x, y, groups=torch.arange(600))
    assert fitted.direction.shape == (_SITES, _D, 3)
    assert ((fitted.scores(x).argmax(-1) == y).float().mean(1) > 0.9).all()


def ignores_the_order_of_rows_and_sites(module: ModuleType) -> None:
    for kind in _kinds(module):
        problem = planted_problem("number" if kind == "number" else "binary", n=160, pairs=module.needs_pairs)
        if kind == "classes":
            thirds = (problem.x[0, :, 0] > 5).long() + problem.y
            problem = PlantedProblem(problem.x, thirds, problem.groups, None, problem.shift, problem.shift)
        whole = problem.fit(module)
        far = 1e-4 * float(whole.direction.abs().max())
        shuffled = problem.fit(module, torch.randperm(160, generator=torch.Generator().manual_seed(2)))
        assert torch.allclose(whole.direction, shuffled.direction, rtol=1e-3, atol=far)
        for site in range(_SITES):
            alone = module.fit(problem.x[site : site + 1], problem.y, groups=problem.groups, pairs=problem.pairs)
            assert torch.allclose(alone.direction[0], whole.direction[site], rtol=1e-3, atol=far)
            assert torch.allclose(alone.bias[0], whole.bias[site], rtol=1e-3, atol=1e-3)
        moved = problem.x.clone()
        moved[:, 0] += 1.0
        other = module.fit(moved, problem.y, groups=problem.groups, pairs=problem.pairs)
        assert not torch.allclose(whole.direction, other.direction, rtol=1e-5, atol=1e-7), (
            "the comparison could not fail"
        )


def streams_like_one_batch(module: ModuleType) -> None:
    """Where the module has a `Fitter`; classes are one column of the same moments each, so two classes stand for all."""
    for kind in [k for k in _kinds(module) if k != "classes"] if hasattr(module, "Fitter") else []:
        for pairs in (False, True):
            problem, fitter = planted_problem(kind, n=400, pairs=pairs), module.Fitter()
            for rows in (slice(0, 10), slice(10, 310), slice(310, 400)):
                given = problem.pairs[rows] if problem.pairs is not None else None
                fitter = fitter.update(problem.x[:, rows], problem.y[rows], given)
            batch, streamed = problem.fit(module), fitter.fitted
            assert torch.allclose(batch.direction, streamed.direction, rtol=1e-3, atol=1e-5)
            assert torch.allclose(batch.bias, streamed.bias, rtol=1e-3, atol=1e-4)
            for fact, value in batch.facts.items():
                assert torch.allclose(value, streamed.facts[fact], rtol=1e-3, atol=1e-4), fact


def scores_the_same_after_saving(module: ModuleType) -> None:
    for kind in _kinds(module):
        problem = planted_problem("number" if kind == "number" else "binary", n=120, pairs=module.needs_pairs)
        fitted = module.fit(problem.x, _target(kind, problem.y), groups=problem.groups, pairs=problem.pairs)
        again = Probe.from_tensors(safetensors.torch.load(safetensors.torch.save(fitted.tensors())))
        assert torch.equal(fitted.scores(problem.x), again.scores(problem.x))
        assert fitted.facts.keys() == again.facts.keys()
        assert all(len(value) == _SITES for value in again.facts.values())


def rejects_invalid_input(module: ModuleType) -> None:
    x, groups = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    pairs = groups // 2 if module.needs_pairs else None
    for kind in _kinds(module):
        good = {"binary": groups % 2 > 0, "classes": groups % 2, "number": groups.float()}[kind]
        assert isinstance(module.fit(x, good, groups=groups, pairs=pairs), Probe)
        with rejects(BadInput if kind == "number" else SingleClassError):
            module.fit(x, torch.zeros_like(good), groups=groups, pairs=pairs)
        if kind != "number":
            lonely = groups == 5 if kind == "binary" else (groups == 5).long()
            with rejects(BadInput, "two examples"):
                module.fit(x, lonely, groups=groups, pairs=pairs)
        with rejects(BadInput, r"not finite at sites \[1\]"):
            module.fit(x.index_fill(0, torch.tensor([1]), torch.nan), good, groups=groups, pairs=pairs)
        with rejects(BadInput, "one target per example"):
            module.fit(x, good[:-1], groups=groups, pairs=pairs)


def fits_fewer_examples_than_dimensions_and_a_constant_feature(module: ModuleType) -> None:
    for kind in _kinds(module):
        problem = planted_problem("number" if kind == "number" else "binary", n=40, d=64, pairs=module.needs_pairs)
        problem.x[:, :, 7] = 3.14159
        fitted = module.fit(problem.x, _target(kind, problem.y), groups=problem.groups, pairs=problem.pairs)
        assert fitted.direction.isfinite().all()
        assert fitted.bias.isfinite().all()
        assert fitted.direction[:, 7].abs().max() < 1e-3 * fitted.direction.abs().max()


PROBE_CLAUSES: tuple[Clause, ...] = (
    declares_its_properties,
    recovers_a_planted_direction,
    has_one_direction_for_each_class,
    ignores_the_order_of_rows_and_sites,
    streams_like_one_batch,
    scores_the_same_after_saving,
    rejects_invalid_input,
    fits_fewer_examples_than_dimensions_and_a_constant_feature,
)


def check_probe(name: str) -> None:
    """Check a probe plug-in against its contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.probes`.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: there is no such probe.
    """
    run_clauses("probe", name, PROBE_CLAUSES, plugins.load_plugin("probes", name))
