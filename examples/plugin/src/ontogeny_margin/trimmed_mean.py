"""Trimmed-mean direction: the difference of class means without the most extreme tenth of each coordinate.

Source: Tukey 1962, doi:10.1214/aoms/1177704711.
"""

from torch import Tensor

from ontogeny.probes import Probe, check_activations, class_indicators

targets = frozenset({"binary"})
needs_pairs = False
recovers = "shift"
recovers_from = "labels"

TRIMMED = 0.05
"""Share of the examples that is left out at each end of each coordinate."""


def fit(x: Tensor, y: Tensor, *, groups: Tensor, pairs: Tensor | None = None, seed: int = 0) -> Probe:
    """Scores are projections on the unit vector, 0 half-way between the trimmed means; facts: `gap`, their distance."""
    x = check_activations("trimmed_mean", x, y)
    inside = class_indicators("trimmed_mean", y)[:, 0]
    positive, negative = _trimmed_mean(x[:, inside]), _trimmed_mean(x[:, ~inside])
    gap = (positive - negative).norm(dim=1, keepdim=True)
    unit = (positive - negative) / gap
    bias = -(unit * (positive + negative) / 2).sum(1, keepdim=True)
    return Probe(unit[..., None], bias, {"gap": gap[:, 0]})


def _trimmed_mean(x: Tensor) -> Tensor:
    cut = int(TRIMMED * x.shape[1])
    return x.sort(dim=1).values[:, cut : x.shape[1] - cut].mean(1)
