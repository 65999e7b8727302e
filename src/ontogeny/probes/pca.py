"""First principal component of the differences of contrastive pairs, its sign set by the class means.

Paper: RepE, arXiv:2310.01405, which shuffles the order within pairs so that centring keeps the mean difference; here the
differences are not centred. Without pairs RepE draws random ones, whose second moment is in expectation twice the covariance of all
examples: that covariance is decomposed here, which finds the concept only if it is the largest variation. (CAA, arXiv:2312.06681,
takes the mean instead: `mass_mean`.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.matmul import matmul
from ontogeny.linalg.moments import Moments
from ontogeny.probes import FoldProbes, Probe, check_activations, class_indicators, training_masks

targets = frozenset({"binary"})
needs_pairs = False
recovers = "shift"
recovers_from = "pairs"

_BLOCK, _BLOCK_ROUNDS = 8, 4
_EIGENVALUE_SHIFT, _ITERATIONS = 1e-10, 4
"""Shift above the largest eigenvalue, relative to it: an eigenvector at a relative distance of 1e-6 is damped to 1e-16."""


def fit(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
    moments: Moments | None = None,
) -> Probe:
    """Unit direction; scores are projections, 0 half-way between the means; facts: `share` of the second moment, `gap`, `std`.

    `moments` are those of x, if known.
    """
    x = check_activations("pca", x, y)
    inside = class_indicators("pca", y)[:, 0]
    paired = pairs is not None and bool((pairs >= 0).any())
    if moments is not None and not paired:
        unit, share = _axis(moments.xx, x.dtype, moments.variances[:, -1])
        return _probe_of_moments(unit, share, moments)
    unit, share = _first(
        _differences(x, inside, pairs) if pairs is not None and paired else x - x.mean(1, keepdim=True)
    )
    means = x[:, inside].mean(1), x[:, ~inside].mean(1)
    spread = (x @ unit[:, :, None]).std(1)[:, 0]
    return _make_probe(unit, share, means[0] - means[1], (means[0] + means[1]) / 2, spread)


def fit_folds(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    folds: Int[Tensor, " example"],
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
    moments: Moments | None = None,
    rest: Sequence[Moments] = (),
) -> FoldProbes:
    """The probe of all examples and that of each fold; `rest` are the moments of the examples outside each fold, if known.

    Without pairs, the axis of a fold comes from a few steps of subspace iteration from that of all.
    """
    probe = fit(x, y, groups=groups, pairs=pairs, seed=seed, moments=moments)
    x = check_activations("pca", x, y)
    paired = pairs is not None and bool((pairs >= 0).any())
    each = []
    for fold, mask in enumerate(training_masks(folds)):
        if paired and pairs is not None:
            each.append(fit(x[:, mask], y[mask], groups=groups[mask], pairs=pairs[mask], seed=seed))
        elif rest:
            second = rest[fold].xx.to(x)
            unit, share = _iterated_axis(
                partial(matmul, second), probe.direction, second.diagonal(dim1=1, dim2=2).sum(1)
            )
            each.append(_probe_of_moments(unit, share, rest[fold]))
        else:
            rows, inside = x[:, mask], class_indicators("pca", y[mask])[:, 0]
            means = rows[:, inside].mean(1), rows[:, ~inside].mean(1)
            centred = rows - rows.mean(1, keepdim=True)
            unit, share = _iterated_axis(partial(_times_twice, centred), probe.direction, centred.square().sum((1, 2)))
            spread = (unit[:, None] @ rows.mT).std(2)[:, 0]
            each.append(_make_probe(unit, share, means[0] - means[1], (means[0] + means[1]) / 2, spread))
    return FoldProbes.of(probe, each)


def _times_twice(rows: Float[Tensor, "site row d"], block: Float[Tensor, "site d k"]) -> Float[Tensor, "site d k"]:
    return matmul(rows.mT, matmul(rows, block))


def _iterated_axis(
    times: Callable[[Tensor], Tensor], start: Float[Tensor, "site d 1"], total: Float[Tensor, " site"]
) -> tuple[Tensor, Tensor]:
    """Eigenvector of the largest eigenvalue and its share of the `total`, in a fixed number of steps."""
    d = start.shape[1]
    draw = torch.Generator().manual_seed(0)
    random = torch.randn(d, min(_BLOCK, d), generator=draw).to(start) / d**0.5
    block = random.expand(len(start), -1, -1).clone()
    block[..., :1] = start.where(~start.isnan(), block[..., :1])
    values = start.new_zeros(len(start), 1)
    for _ in range(_BLOCK_ROUNDS):
        block = torch.linalg.qr(times(times(block)))[0]
        values, turn = torch.linalg.eigh(block.mT @ times(block))
        block = block @ turn
    unit = block[..., -1].where(values[:, -1:] > 0, torch.nan)
    return unit, values[:, -1] / total


@dataclass
class Fitter:
    """Streaming; both halves of a pair must be in one batch, and either all batches have pairs or none."""

    moments: Moments | None = None
    differences: Float[Tensor, "site d d"] | None = None

    def update(self, x: Float[Tensor, "site example d"], y: Tensor, pairs: Tensor | None = None) -> "Fitter":
        x = check_activations("pca", x, y)
        new = Moments.of(x, y[:, None].double())
        paired = pairs is not None and bool((pairs >= 0).any())
        if self.moments is not None and paired != (self.differences is not None):
            raise BadInput(
                "pca needs pairs in all batches or in none, got both: give `pairs` with every batch, or never."
            )
        self.moments = new if self.moments is None else self.moments + new
        if paired and pairs is not None:
            rows = _differences(x, y, pairs).double()
            second = rows.mT @ rows
            self.differences = second if self.differences is None else self.differences + second
        return self

    @property
    def fitted(self) -> Probe:
        if self.moments is None or not 0 < float(self.moments.z[0]) < 1:
            raise BadInput("pca needs examples of both classes: call update() with both before reading the probe.")
        second = self.moments.xx if self.differences is None else self.differences
        values, vectors = torch.linalg.eigh(second)
        unit, share = vectors[..., -1], values[..., -1] / values.sum(-1)
        return _probe_of_moments(unit.float(), share.float(), self.moments)


def _differences(x: Tensor, inside: Tensor, pairs: Tensor) -> Tensor:
    """Mean positive minus mean negative activation of each pair with both."""
    names, index = torch.unique(pairs, return_inverse=True)
    sides = torch.stack([inside & (pairs >= 0), ~inside & (pairs >= 0)])
    onto = torch.zeros(2, len(names), len(pairs), dtype=x.dtype, device=x.device)
    onto[:, index, torch.arange(len(pairs), device=x.device)] = sides.to(x)
    count = onto.sum(2, keepdim=True)
    both = (count > 0).all(0)[:, 0]
    if not both.any():
        raise BadInput(
            "pca needs pairs with an example of each class, but no pair has both: pair each example with its opposite."
        )
    plus, minus = onto[:, both] / count[:, both]
    rows: Tensor = (plus - minus) @ x
    return rows


def _first(rows: Tensor) -> tuple[Tensor, Tensor]:
    """First right singular vector and its share of the second moment."""
    wide = rows.double()
    if rows.shape[1] >= rows.shape[2]:
        return _axis(wide.mT @ wide, rows.dtype)
    unit, share = _axis(wide @ wide.mT, wide.dtype)
    unit = torch.einsum("snd,sn->sd", wide, unit)
    return (unit / unit.norm(dim=1, keepdim=True)).to(rows), share.to(rows)


def _axis(
    second: Float[Tensor, "site d d"], dtype: torch.dtype, largest: Float[Tensor, " site"] | None = None
) -> tuple[Tensor, Tensor]:
    if largest is None:
        largest = torch.linalg.eigvalsh(second)[:, -1]
    unit = _leading(second, largest).where(largest[:, None] > 0, torch.nan)
    return unit.to(dtype), (largest / second.diagonal(dim1=1, dim2=2).sum(1)).to(dtype)


def _leading(second: Float[Tensor, "site d d"], largest: Float[Tensor, " site"]) -> Float[Tensor, "site d"]:
    """Eigenvector of the largest eigenvalue, by inverse iteration from just above it (12 times as fast as a decomposition)."""
    near = -second
    near.diagonal(dim1=1, dim2=2).add_((largest * (1 + _EIGENVALUE_SHIFT))[:, None])
    factor, failed = torch.linalg.cholesky_ex(near)
    draw = torch.Generator().manual_seed(0)
    unit = torch.randn(second.shape[1], 1, generator=draw, dtype=torch.float64).to(second).expand(len(second), -1, 1)
    for _ in range(_ITERATIONS):
        unit = torch.cholesky_solve(unit / unit.norm(dim=1, keepdim=True), factor)
    found: Tensor = (unit / unit.norm(dim=1, keepdim=True))[..., 0]
    if failed.any():  # e.g. a zero matrix
        found[failed > 0] = torch.linalg.eigh(second[failed > 0])[1][..., -1]
    return found


def _probe_of_moments(unit: Tensor, share: Tensor, moments: Moments) -> Probe:
    positive, negative = (mean[..., 0].to(unit) for mean in moments.class_means())
    wide = unit.double()
    variance = (wide * (moments.xx @ wide[..., None])[..., 0]).sum(1) / (moments.count - 1)
    spread = variance.clamp(min=0).sqrt().to(unit)
    return _make_probe(unit, share, positive - negative, (positive + negative) / 2, spread)


def _make_probe(unit: Tensor, share: Tensor, gap: Tensor, middle: Tensor, spread: Tensor) -> Probe:
    along = (unit * gap).sum(1, keepdim=True)
    unit = torch.where(along < 0, -unit, unit)
    bias = -(unit * middle).sum(1, keepdim=True)
    return Probe(unit[..., None], bias, {"share": share, "gap": along.abs()[:, 0], "std": spread})
