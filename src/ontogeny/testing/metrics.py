"""Contract of a metric: its range, its declared invariances, and NaN (never 0) for undefined values."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.metrics import Metric
from ontogeny.testing._contract import Clause, rejects, run_clauses

_N, _D = 24, 12
_Inputs = tuple[Tensor, ...]
_DEFINED_FOR_ONE_CLASS = {"accuracy", "expected_calibration_error"}


def _rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _inputs(metric: Metric, seed: int = 0) -> _Inputs:
    """Arguments of a metric; two cells if it takes a batch, so that NaN in one must not change the other."""
    label = torch.arange(_N) % 3
    made: dict[str, _Inputs] = {
        "scores, labels": (_rand(2, _N, seed=seed), label > 0),
        "scores, classes": (_rand(2, _N, 3, seed=seed), label),
        "scores, numbers": (_rand(2, _N, seed=seed), _rand(_N, seed=seed + 1)),
        "scores, pairs": (
            _rand(2, _N, 9, seed=seed),
            ((torch.arange(_N)[:, None] + torch.arange(9)) % 5 - 2).clamp(min=0),
        ),
        "confidences, correct": (_rand(_N, seed=seed).sigmoid(), label > 0),
        "variables": (_rand(_N, _D, seed=seed), _rand(_N, 2, seed=seed + 1)),
        "activations": (_rand(2, _N, _D, seed=seed) * torch.arange(1, _D + 1), *()),
        "directions": (_rand(2, _D, seed=seed), _rand(2, _D, seed=seed + 1)),
        "subspaces": (_rand(2, _D, 2, seed=seed), _rand(2, _D, 3, seed=seed + 1)),
    }
    return made[metric.takes]


def _with_first(args: _Inputs, change: Callable[[Tensor], Tensor]) -> _Inputs:
    return (change(args[0]), *args[1:])


def _rotated(metric: Metric, args: _Inputs) -> _Inputs:
    q = torch.linalg.qr(_rand(_D, _D, seed=9))[0]
    if metric.takes == "variables":
        return _with_first(args, lambda a: a @ q)
    if metric.takes == "subspaces":
        return tuple(q @ a for a in args)
    return tuple(a @ q for a in args)


def _permuted(metric: Metric, args: _Inputs) -> _Inputs:
    order = torch.randperm(_N, generator=torch.Generator().manual_seed(3))
    axis = 0 if metric.takes in ("variables", "confidences, correct") else 1
    first = args[0].index_select(axis, order)
    return (first, *(a[order] for a in args[1:]))


_CHANGES: dict[str, Callable[[Metric, _Inputs], _Inputs]] = {
    "permutation": _permuted,
    "monotone": lambda m, a: _with_first(a, lambda s: torch.expm1(s / 2)),
    "affine": lambda m, a: _with_first(a, lambda s: 3 - 2 * s),
    "positive_scale": lambda m, a: _with_first(a, lambda s: 2.5 * s),
    "shift": lambda m, a: _with_first(a, lambda s: s + 1.25),
    "rotation": _rotated,
    "translation": lambda m, a: _with_first(a, lambda x: x + 7),
    "scale": lambda m, a: _with_first(a, lambda x: 0.3 * x),
}


def declares_documentation_reference_and_invariances(metric: Metric) -> None:
    assert metric.function.__doc__
    assert metric.reference
    assert metric.invariances
    assert metric.invariances <= _CHANGES.keys()


def stays_in_its_range(metric: Metric) -> None:
    values = torch.cat([metric.function(*_inputs(metric, seed)).double().flatten() for seed in range(30)])
    assert values.isfinite().all()
    assert metric.low is None or values.min() >= metric.low - 1e-6
    assert metric.high is None or values.max() <= metric.high + 1e-6
    assert values.max() > values.min(), "a constant metric measures nothing"


def keeps_its_declared_invariances(metric: Metric) -> None:
    args = _inputs(metric)
    before = metric.function(*args)
    for name in sorted(metric.invariances):
        after = metric.function(*_CHANGES[name](metric, args))
        assert torch.allclose(before, after, rtol=1e-4, atol=1e-5 * float(before.abs().max())), name
    other = metric.function(*_inputs(metric, seed=50))
    assert not torch.allclose(before, other, rtol=1e-3, atol=1e-3 * float(before.abs().max())), (
        "the comparison must be able to fail"
    )


def changes_only_the_cell_of_a_nan(metric: Metric) -> None:
    args = _inputs(metric)
    clean = metric.function(*args)

    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x.flatten()[-1] = math.nan
        return x

    if metric.takes == "confidences, correct":
        with rejects(BadInput):
            metric.function(*_with_first(args, spoil))
        return
    spoilt = metric.function(*_with_first(args, spoil))
    if metric.takes == "variables":
        assert spoilt.isnan()
        return
    assert spoilt[-1].isnan().all()
    assert torch.equal(spoilt[0], clean[0])


def is_nan_where_it_is_undefined(metric: Metric) -> None:
    """One class, a constant target, activations without spread, a zero direction."""
    if metric.name in _DEFINED_FOR_ONE_CLASS:
        return
    args = _inputs(metric)
    scores = metric.takes.startswith("scores")
    empty = (args[0], torch.zeros_like(args[1])) if scores else _with_first(args, torch.zeros_like)
    assert metric.function(*empty).isnan().all()


def rejects_rows_that_do_not_match(metric: Metric) -> None:
    if not metric.takes.startswith(("scores", "confidences", "variables")):
        return
    from jaxtyping import TypeCheckError  # raised instead if annotations are checked at run time

    first, second = _inputs(metric)
    with rejects((BadInput, TypeCheckError)):
        metric.function(first, second[:-1])


METRIC_CLAUSES: tuple[Clause, ...] = (
    declares_documentation_reference_and_invariances,
    stays_in_its_range,
    keeps_its_declared_invariances,
    changes_only_the_cell_of_a_nan,
    is_nan_where_it_is_undefined,
    rejects_rows_that_do_not_match,
)


def check_metrics(name: str) -> None:
    """Check all metrics of a metric plug-in against the contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.metrics`.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: there is no such plug-in.
    """
    for metric in plugins.load_plugin("metrics", name).metrics:
        run_clauses("metric", metric.name, METRIC_CLAUSES, metric)
