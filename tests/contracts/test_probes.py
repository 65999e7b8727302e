"""Every probe in the folder: it recovers a planted direction, streams, saves, rejects invalid input and ignores the row order."""

from dataclasses import dataclass

import pytest
import safetensors.torch
import torch
from torch import Tensor

from ontogeny import plugins
from ontogeny.errors import BadInput, SingleClassError
from ontogeny.probes import Probe

SITES, D = 3, 12
FITS = plugins.list_plugins("probes")


@dataclass(frozen=True)
class Planted:
    x: Tensor
    y: Tensor
    groups: Tensor
    pairs: Tensor | None
    shift: Tensor
    """[site, d]: the vector added per unit of y."""
    readout: Tensor
    """[site, d]: its best linear readout under this noise."""

    def fit(self, name: str, rows: Tensor | None = None) -> Probe:
        rows = torch.arange(len(self.y)) if rows is None else rows
        pairs = None if self.pairs is None else self.pairs[rows]
        return plugins.load_plugin("probes", name).fit(
            self.x[:, rows], self.y[rows], groups=self.groups[rows], pairs=pairs
        )


def planted(kind: str = "binary", *, pairs: bool = False, n: int = 4000, d: int = D, seed: int = 0) -> Planted:
    """Anisotropic noise far from the origin, one direction of it larger than the concept, unequal classes."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(SITES, d, d, generator=g))[0]
    spread = torch.linspace(0.5, 2.0, d)
    spread[0] = 6.0
    shift = torch.randn(SITES, d, generator=g)
    shift = 2.5 * shift / shift.norm(dim=1, keepdim=True)
    y = torch.rand(n, generator=g) < 0.35
    noise = torch.randn(SITES, n, d, generator=g)
    if pairs:
        y = torch.arange(n) % 2 == 0
        shared = noise[:, : n // 2].repeat_interleave(2, 1)
        noise = shared + 0.1 * noise
    number = y.float() if kind == "binary" else torch.randn(n, generator=g)
    x = 5.0 + (noise * spread) @ axes.mT + number[None, :, None] * shift[:, None]
    covariance = axes * spread.square() @ axes.mT
    readout = torch.linalg.solve(covariance, shift[..., None])[..., 0]
    group = torch.arange(n) // 2
    return Planted(x, y if kind == "binary" else number, group, group if pairs else None, shift, readout)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.cosine_similarity(a, b, dim=-1)


def kinds(*, of: str | None = None) -> list[tuple[str, str]]:
    every = [(name, kind) for name in FITS for kind in sorted(plugins.load_plugin("probes", name).targets)]
    return [(name, kind) for name, kind in every if of is None or kind == of]


def test_folder_has_the_known_probes() -> None:
    assert {"logistic", "mass_mean", "pca", "leace", "ridge"} <= set(FITS)


@pytest.mark.parametrize("name", FITS)
def test_declares_its_properties(name: str) -> None:
    module = plugins.load_plugin("probes", name)
    assert module.targets
    assert module.targets <= {"binary", "classes", "number"}
    assert isinstance(module.needs_pairs, bool)
    assert module.recovers in {"shift", "readout"}
    assert module.recovers_from in {"labels", "pairs"}
    assert plugins.plugin_summary("probes", name).endswith((".", ")"))


def test_planted_problem_is_not_trivial() -> None:
    """The largest variation is not the concept, and the readout is not the shift."""
    problem = planted()
    largest = torch.linalg.svd(problem.x - problem.x.mean(1, keepdim=True), full_matrices=False)[2][:, 0]
    assert cosine(largest, problem.shift).abs().max() < 0.7
    assert cosine(problem.readout, problem.shift).max() < 0.95


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in kinds() if k != "classes"])
def test_recovers_a_planted_direction(name: str, kind: str) -> None:
    module = plugins.load_plugin("probes", name)
    problem = planted(kind, pairs=module.recovers_from == "pairs")
    fitted = problem.fit(name)
    truth = problem.shift if module.recovers == "shift" else problem.readout
    assert fitted.direction.shape == (SITES, D, 1)
    assert cosine(fitted.direction[..., 0], truth).min() > 0.97
    scores = fitted.scores(problem.x)[..., 0]
    if kind == "binary":
        assert (scores[:, problem.y].mean(1) > scores[:, ~problem.y].mean(1)).all()


@pytest.mark.parametrize(("name", "kind"), kinds(of="classes"))
def test_classes_have_one_direction_each(name: str, kind: str) -> None:
    g = torch.Generator().manual_seed(1)
    y = torch.randint(0, 3, (600,), generator=g)
    means = 3 * torch.randn(SITES, 3, D, generator=g)
    x = means[:, y] + torch.randn(SITES, 600, D, generator=g)
    fitted = plugins.load_plugin("probes", name).fit(x, y, groups=torch.arange(600))
    assert fitted.direction.shape == (SITES, D, 3)
    assert ((fitted.scores(x).argmax(-1) == y).float().mean(1) > 0.9).all()


@pytest.mark.parametrize(("name", "kind"), kinds())
def test_order_of_rows_and_sites_does_not_matter(name: str, kind: str) -> None:
    problem = planted(
        "number" if kind == "number" else "binary", n=160, pairs=plugins.load_plugin("probes", name).needs_pairs
    )
    if kind == "classes":
        problem = Planted(
            problem.x, (problem.x[0, :, 0] > 5).long() + problem.y, problem.groups, None, *[problem.shift] * 2
        )
    whole = problem.fit(name)
    shuffled = problem.fit(name, torch.randperm(160, generator=torch.Generator().manual_seed(2)))
    assert torch.allclose(
        whole.direction, shuffled.direction, rtol=1e-3, atol=1e-4 * float(whole.direction.abs().max())
    )
    module = plugins.load_plugin("probes", name)
    for site in range(SITES):
        alone = module.fit(problem.x[site : site + 1], problem.y, groups=problem.groups, pairs=problem.pairs)
        assert torch.allclose(
            alone.direction[0], whole.direction[site], rtol=1e-3, atol=1e-4 * float(whole.direction.abs().max())
        )
        assert torch.allclose(alone.bias[0], whole.bias[site], rtol=1e-3, atol=1e-3)
    moved = problem.x.clone()
    moved[:, 0] += 1.0
    other = module.fit(moved, problem.y, groups=problem.groups, pairs=problem.pairs)
    assert not torch.allclose(whole.direction, other.direction, rtol=1e-5, atol=1e-7), "the comparison could not fail"


# Classes are one column of the same moments each, so two classes stand for all.
STREAMS = [(n, k) for n, k in kinds() if k != "classes" and hasattr(plugins.load_plugin("probes", n), "Fitter")]


@pytest.mark.parametrize(("name", "kind"), STREAMS)
@pytest.mark.parametrize("pairs", [False, True])
def test_streaming_equals_one_batch(name: str, kind: str, pairs: bool) -> None:
    module = plugins.load_plugin("probes", name)
    problem = planted(kind, n=400, pairs=pairs)
    fitter = module.Fitter()
    for rows in (slice(0, 10), slice(10, 310), slice(310, 400)):
        batch = problem.pairs[rows] if problem.pairs is not None else None
        fitter = fitter.update(problem.x[:, rows], problem.y[rows], batch)
    batch, streamed = problem.fit(name), fitter.fitted
    assert torch.allclose(batch.direction, streamed.direction, rtol=1e-3, atol=1e-5)
    assert torch.allclose(batch.bias, streamed.bias, rtol=1e-3, atol=1e-4)
    for fact, value in batch.facts.items():
        assert torch.allclose(value, streamed.facts[fact], rtol=1e-3, atol=1e-4), fact


@pytest.mark.parametrize(("name", "kind"), kinds())
def test_saved_probe_scores_the_same(name: str, kind: str) -> None:
    problem = planted("number" if kind == "number" else "binary", n=120)
    y = problem.y.long() if kind == "classes" else problem.y
    fitted = plugins.load_plugin("probes", name).fit(problem.x, y, groups=problem.groups)
    again = Probe.from_tensors(safetensors.torch.load(safetensors.torch.save(fitted.tensors())))
    assert torch.equal(fitted.scores(problem.x), again.scores(problem.x))
    assert fitted.facts.keys() == again.facts.keys()
    assert all(len(value) == SITES for value in again.facts.values())
    with pytest.raises(BadInput, match="direction"):
        Probe.from_tensors({"bias": fitted.bias})


@pytest.mark.parametrize(("name", "kind"), kinds())
def test_rejects_invalid_input(name: str, kind: str) -> None:
    module = plugins.load_plugin("probes", name)
    x, groups = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    good = {"binary": groups > 2, "classes": groups % 2, "number": groups.float()}[kind]
    assert isinstance(module.fit(x, good, groups=groups), Probe)
    one = torch.zeros_like(good)
    with pytest.raises(BadInput if kind == "number" else SingleClassError):
        module.fit(x, one, groups=groups)
    if kind != "number":
        with pytest.raises(BadInput, match="two examples"):
            module.fit(x, good & (groups == 5) if kind == "binary" else (groups == 5).long(), groups=groups)
    with pytest.raises(BadInput, match="not finite at sites \\[1\\]"):
        module.fit(x.index_fill(0, torch.tensor([1]), torch.nan), good, groups=groups)
    with pytest.raises(BadInput, match="one target per example"):
        module.fit(x, good[:-1], groups=groups)


@pytest.mark.parametrize(("name", "kind"), kinds())
def test_fewer_examples_than_dimensions_and_a_constant_feature(name: str, kind: str) -> None:
    problem = planted("number" if kind == "number" else "binary", n=40, d=64)
    problem.x[:, :, 7] = 3.14159
    y = problem.y.long() if kind == "classes" else problem.y
    fitted = plugins.load_plugin("probes", name).fit(problem.x, y, groups=problem.groups)
    assert fitted.direction.isfinite().all()
    assert fitted.bias.isfinite().all()
    assert fitted.direction[:, 7].abs().max() < 1e-3 * fitted.direction.abs().max()
