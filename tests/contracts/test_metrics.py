"""Every metric in the folder: its range, its declared invariances, and NaN (never 0) for undefined values."""

import math
from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.metrics import Metric

METRICS = [
    metric for name in plugins.list_plugins("metrics") for metric in plugins.load_plugin("metrics", name).metrics
]
N, D = 24, 12
Inputs = tuple[Tensor, ...]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(metric: Metric, seed: int = 0) -> Inputs:
    """Arguments of a metric; two cells if it takes a batch, so that NaN in one must not change the other."""
    label = torch.arange(N) % 3
    made: dict[str, Inputs] = {
        "scores, labels": (rand(2, N, seed=seed), label > 0),
        "scores, classes": (rand(2, N, 3, seed=seed), label),
        "scores, numbers": (rand(2, N, seed=seed), rand(N, seed=seed + 1)),
        "confidences, correct": (rand(N, seed=seed).sigmoid(), label > 0),
        "variables": (rand(N, D, seed=seed), rand(N, 2, seed=seed + 1)),
        "activations": (rand(2, N, D, seed=seed) * torch.arange(1, D + 1), *()),
        "directions": (rand(2, D, seed=seed), rand(2, D, seed=seed + 1)),
        "subspaces": (rand(2, D, 2, seed=seed), rand(2, D, 3, seed=seed + 1)),
    }
    return made[metric.takes]


def with_first(args: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return (change(args[0]), *args[1:])


def rotated(metric: Metric, args: Inputs) -> Inputs:
    q = torch.linalg.qr(rand(D, D, seed=9))[0]
    if metric.takes == "variables":
        return with_first(args, lambda a: a @ q)
    if metric.takes == "subspaces":
        return tuple(q @ a for a in args)
    return tuple(a @ q for a in args)


def permuted(metric: Metric, args: Inputs) -> Inputs:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    axis = 0 if metric.takes in ("variables", "confidences, correct") else 1
    first = args[0].index_select(axis, order)
    return (first, *(a[order] for a in args[1:]))


CHANGES: dict[str, Callable[[Metric, Inputs], Inputs]] = {
    "permutation": permuted,
    "monotone": lambda m, a: with_first(a, lambda s: torch.expm1(s / 2)),
    "affine": lambda m, a: with_first(a, lambda s: 3 - 2 * s),
    "positive_scale": lambda m, a: with_first(a, lambda s: 2.5 * s),
    "shift": lambda m, a: with_first(a, lambda s: s + 1.25),
    "rotation": rotated,
    "translation": lambda m, a: with_first(a, lambda x: x + 7),
    "scale": lambda m, a: with_first(a, lambda x: 0.3 * x),
}


def ids(metric: Metric) -> str:
    return metric.name


def test_folder_has_the_known_metrics() -> None:
    names = [metric.name for metric in METRICS]
    assert {
        "auroc",
        "accuracy",
        "r2",
        "hsic",
        "nhsic",
        "participation_ratio",
        "cosine",
        "nats_bound",
        "expected_calibration_error",
    } <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_declares_documentation_reference_and_invariances(metric: Metric) -> None:
    assert metric.function.__doc__
    assert metric.reference
    assert metric.invariances
    assert metric.invariances <= CHANGES.keys()


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_stays_in_its_range(metric: Metric) -> None:
    values = torch.cat([metric.function(*inputs(metric, seed)).double().flatten() for seed in range(30)])
    assert values.isfinite().all()
    assert metric.low is None or values.min() >= metric.low - 1e-6
    assert metric.high is None or values.max() <= metric.high + 1e-6
    assert values.max() > values.min(), "a constant metric measures nothing"


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_declared_invariances_hold(metric: Metric) -> None:
    args = inputs(metric)
    before = metric.function(*args)
    for name in sorted(metric.invariances):
        after = metric.function(*CHANGES[name](metric, args))
        assert torch.allclose(before, after, rtol=1e-4, atol=1e-5 * float(before.abs().max())), name
    other = metric.function(*inputs(metric, seed=50))
    assert not torch.allclose(before, other, rtol=1e-3, atol=1e-3 * float(before.abs().max())), (
        "the comparison must be able to fail"
    )


@pytest.mark.parametrize("metric", METRICS, ids=ids)
def test_nan_changes_its_own_cell_only(metric: Metric) -> None:
    args = inputs(metric)
    clean = metric.function(*args)

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x.flatten()[-1] = math.nan
        return x

    if metric.takes == "confidences, correct":
        with pytest.raises(BadInput):
            metric.function(*with_first(args, spoil))
        return
    spoilt = metric.function(*with_first(args, spoil))
    if metric.takes == "variables":
        assert spoilt.isnan()
        return
    assert spoilt[-1].isnan().all()
    assert torch.equal(spoilt[0], clean[0])


@pytest.mark.parametrize(
    "metric", [m for m in METRICS if m.name not in {"accuracy", "expected_calibration_error"}], ids=ids
)
def test_undefined_values_are_nan(metric: Metric) -> None:
    """One class, a constant target, activations without spread, a zero direction."""
    args = inputs(metric)
    scores = metric.takes.startswith("scores")
    empty = (args[0], torch.zeros_like(args[1])) if scores else with_first(args, torch.zeros_like)
    assert metric.function(*empty).isnan().all()


@pytest.mark.parametrize(
    "metric", [m for m in METRICS if m.takes.startswith(("scores", "confidences", "variables"))], ids=ids
)
def test_rejects_rows_that_do_not_match(metric: Metric) -> None:
    first, second = inputs(metric)
    # TypeCheckError if annotations are checked at run time.
    with pytest.raises((BadInput, TypeCheckError)):
        metric.function(first, second[:-1])
