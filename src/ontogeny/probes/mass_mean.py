"""Mass-mean direction: from the mean of one class to the mean of the other classes.

Paper: Marks & Tegmark, arXiv:2310.06824. The direction is a unit vector; the facts are the standard deviation of the projections (as
in arXiv:2402.19465, but over the training rows only) and the distance of the means, which `steering_vector` applies.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.moments import Moments
from ontogeny.probes import FoldProbes, Probe, check_activations, class_indicators, training_masks

targets = frozenset({"binary", "classes"})
needs_pairs = False
recovers = "shift"
recovers_from = "labels"

_SCALING_RULES = ("unit", "std", "gap")


def fit(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
) -> Probe:
    """Scores are projections, 0 half-way between the means; facts: `gap`, `std` (sample standard deviation of the projections)."""
    x = check_activations("mass_mean", x, y)
    inside = class_indicators("mass_mean", y).to(x)
    # Means relative to a common origin: activations are far from zero, their differences are not.
    origin = x.mean(1, keepdim=True)
    centred = x - origin
    positive, negative = _means(inside, centred), _means(1 - inside, centred)
    unit, gap = _unit(positive - negative)
    spread = (unit.mT @ centred.mT).std(2)
    return _make_probe(unit, gap, spread, (positive + negative) / 2 + origin.mT)


def fit_folds(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    folds: Int[Tensor, " example"],
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
) -> FoldProbes:
    """The probe of all examples and that of each fold; the folds share one pass over the activations."""
    probe = fit(x, y, groups=groups, pairs=pairs, seed=seed)
    x = check_activations("mass_mean", x, y)
    inside, train = class_indicators("mass_mean", y).to(x), training_masks(folds).to(x)
    origin = x.mean(1, keepdim=True)
    columns = train.T[:, :, None] * inside[:, None]  # [example, fold, k]
    others = train.T[:, :, None] * (1 - inside[:, None])
    # Means of all folds and classes as one thin product.
    means = _means(torch.cat([columns, others], 2).flatten(1), x - origin)
    positive, negative = means.reshape(*means.shape[:2], columns.shape[1], -1).chunk(2, 3)
    unit, _ = _unit((positive - negative).flatten(2))
    middle = ((positive + negative) / 2).flatten(2) + origin.mT
    shape = positive.shape[2:]
    return FoldProbes(probe, unit.reshape(*unit.shape[:2], *shape), -(unit * middle).sum(1).reshape(len(x), *shape))


def steering_vector(probe: Probe, rule: str) -> Float[Tensor, "site d k"]:
    """Steering vector of length 1 (`unit`), the standard deviation of the projections (`std`), or the distance of the means (`gap`)."""
    if rule not in _SCALING_RULES:
        raise BadInput(f"`rule` must be unit, std or gap, got {rule!r}.")
    return probe.direction if rule == "unit" else probe.direction * probe.facts[rule][:, None]


@dataclass
class Fitter:
    """Streaming: `Fitter().update(x1, y1).update(x2, y2).fitted`."""

    classes: int | None = None
    """Number of classes; None for binary."""
    moments: Moments | None = None

    def update(self, x: Float[Tensor, "site example d"], y: Tensor, pairs: Tensor | None = None) -> "Fitter":
        z = y[:, None] if self.classes is None else y[:, None] == torch.arange(self.classes, device=y.device)
        new = Moments.of(check_activations("mass_mean", x, y), z.double())
        self.moments = new if self.moments is None else self.moments + new
        return self

    @property
    def fitted(self) -> Probe:
        if self.moments is None or not ((self.moments.z > 0) & (self.moments.z < 1)).all():
            raise BadInput(
                "mass_mean needs examples of every class: call update() with all of them before reading the probe."
            )
        positive, negative = self.moments.class_means()
        unit, gap = _unit(positive - negative)
        variance = (unit * (self.moments.xx @ unit)).sum(1) / (self.moments.count - 1)
        return _make_probe(
            unit.float(), gap.float(), variance.clamp(min=0).sqrt().float(), ((positive + negative) / 2).float()
        )


def _means(inside: Tensor, x: Tensor) -> Tensor:
    # The thin factor is on the left: MKL is up to 14 times slower with few columns on the right.
    return ((inside / inside.sum(0)).mT @ x).mT


def _unit(difference: Tensor) -> tuple[Tensor, Tensor]:
    gap = difference.norm(dim=1)
    # NaN if the means coincide.
    return difference / torch.where(gap > 0, gap, torch.nan)[:, None], gap


def _make_probe(unit: Tensor, gap: Tensor, spread: Tensor, middle: Tensor) -> Probe:
    return Probe(unit, -(unit * middle).sum(1), {"gap": gap, "std": spread})
