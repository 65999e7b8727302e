"""Mass-mean direction: from the mean of one class to the mean of the other (of all others, where there are several).

Paper: Marks & Tegmark, arXiv:2310.06824. The direction is the unit vector; the spread of the projections on it (as in
arXiv:2402.19465, but of the rows it was built on only) and the distance of the means are kept, and `scaled` applies them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.moments import Moments
from ontogeny.probes import Probe
from ontogeny.probes._inputs import check_activations, class_indicators

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
    # Means about a common origin: activations lie far from zero, their differences do not.
    origin = x.mean(1, keepdim=True)
    centred = x - origin
    positive, negative = _means(inside, centred), _means(1 - inside, centred)
    unit, gap = _unit(positive - negative)
    spread = (unit.mT @ centred.mT).std(2)
    return _make_probe(unit, gap, spread, (positive + negative) / 2 + origin.mT)


def steering_vector(fitted: Probe, rule: str) -> Float[Tensor, "site d k"]:
    """The steering vector: of length 1, of the spread of the projections, or of the distance of the class means."""
    if rule not in _SCALING_RULES:
        raise BadInput(f"no scale rule {rule!r}. Use unit, std or gap.")
    return fitted.direction if rule == "unit" else fitted.direction * fitted.facts[rule][:, None]


@dataclass
class Fitter:
    """The same from batches: `Fitter().update(x1, y1).update(x2, y2).fitted`. Each class index must fit `classes`."""

    classes: int | None = None
    """Number of classes; None = binary."""
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
                "mass_mean has not seen examples of every class yet. Update it with both before reading `fitted`."
            )
        positive, negative = self.moments.class_means()
        unit, gap = _unit(positive - negative)
        variance = (unit * (self.moments.xx @ unit)).sum(1) / (self.moments.count - 1)
        return _make_probe(
            unit.float(), gap.float(), variance.clamp(min=0).sqrt().float(), ((positive + negative) / 2).float()
        )


def _means(inside: Tensor, x: Tensor) -> Tensor:
    # The thin factor on the left: batched products with few columns on the right are up to 14 times slower in MKL.
    return ((inside / inside.sum(0)).mT @ x).mT


def _unit(difference: Tensor) -> tuple[Tensor, Tensor]:
    gap = difference.norm(dim=1)
    # Where the means coincide there is no direction: NaN, not an arbitrary one.
    return difference / torch.where(gap > 0, gap, torch.nan)[:, None], gap


def _make_probe(unit: Tensor, gap: Tensor, spread: Tensor, middle: Tensor) -> Probe:
    return Probe(unit, -(unit * middle).sum(1), {"gap": gap, "std": spread})
