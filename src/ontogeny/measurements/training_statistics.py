"""Statistics of a part's training activations that several probes share: principal axes, and moments of all examples and of each fold.

With fewer examples than dimensions, moments are those in the span of the examples, where PCA and LEACE have the same solution; else the
d × d matrices would dominate the cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.moments import Moments, fold_moments
from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.measurements.design import Design
from ontogeny.probes import FoldProbes, Probe, leace

_BY_MOMENTS = ("pca", "leace")
_BY_AXES = ("logistic", "ridge")


@dataclass(frozen=True)
class ExampleSpan:
    """Coordinates in the span of the centred examples, and the map back."""

    coordinates: Float[Tensor, "site example r"]
    axes: Float[Tensor, "site d r"]
    """Orthonormal, in float64."""
    mean: Float[Tensor, "site d"]
    """In float64."""

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"]) -> "ExampleSpan":
        wide = x.double()
        mean = wide.mean(1, keepdim=True)
        axes, coordinates = torch.linalg.qr((wide - mean).mT)
        return cls(coordinates.mT.to(x), axes, mean[:, 0])

    def to_raw(self, probe: Probe) -> Probe:
        """The probe of the coordinates as one of the activations."""
        direction = self._spread(probe.direction)
        bias = probe.bias.double() - (self.mean[:, :, None] * direction).sum(1)
        facts = {name: self._spread(fact).to(fact) if name == "removed" else fact for name, fact in probe.facts.items()}
        return Probe(direction.to(probe.direction), bias.to(probe.bias), facts)

    def _spread(self, coordinates: Float[Tensor, "site r k"]) -> Float[Tensor, "site d k"]:
        # The thin factor is on the left: MKL is fifteen times slower with few columns on the right.
        return (coordinates.double().mT.contiguous() @ self.axes.mT).mT


@dataclass(frozen=True)
class TrainingStatistics:
    """Of all sites of a part."""

    basis: PrincipalAxes
    moments: Moments | None
    """None unless the target has two classes, and without cross-fitting where dimensions outnumber examples."""
    rest: Sequence[Moments]
    """Moments of the examples outside each fold, likewise."""
    span: ExampleSpan | None
    """Where the moments are, under cross-fitting with at most as many examples as dimensions."""

    @classmethod
    def of(cls, train: Float[Tensor, "site train d"], design: Design) -> "TrainingStatistics":
        """The statistics of the training activations of a part."""
        y, folds, basis = design.y_train, design.test_folds, PrincipalAxes.of(train)
        few = train.shape[1] <= train.shape[2]
        if y.dtype != torch.bool or (few and folds is None):
            return cls(basis, None, [], None)
        span = ExampleSpan.of(train) if few else None
        x, z = train if span is None else span.coordinates, y[:, None].double()
        moments = Moments.of(x, z)
        return cls(basis, moments, [] if folds is None else fold_moments(moments, x, z, folds), span)

    def given(self, method: str) -> dict[str, Any]:
        """Arguments of `fit` for a probe."""
        if method in _BY_AXES:
            return {"basis": self.basis}
        return {"moments": self.moments} if method in _BY_MOMENTS else {}

    def fold_probes(
        self, method: str, fit_folds: Any, x: Float[Tensor, "site example d"], y: Tensor, columns: Mapping[str, Any]
    ) -> FoldProbes:
        """The probes of a method with a `fit_folds` of its own.

        Args:
            columns: Further arguments: folds, groups, pairs and seed.
        """
        given = dict(self.given(method))
        if method not in _BY_MOMENTS:
            fits: FoldProbes = fit_folds(x, y, **columns, **given)
            return fits
        given["rest"] = self.rest
        if self.span is None:
            fits = fit_folds(x, y, **columns, **given)
            return fits
        if method == "leace":  # a share of the mean variance over all dimensions
            given["shrink"] = leace.SHRINK * self.span.axes.shape[2] / self.span.axes.shape[1]
        fits = fit_folds(self.span.coordinates, y, **columns, **given)
        each = [self.span.to_raw(fits.fold(number)) for number in range(fits.bias.shape[1])]
        return FoldProbes.of(self.span.to_raw(fits.probe), each)
