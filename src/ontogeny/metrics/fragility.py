"""Fragility of a probe: the standard deviation of Gaussian noise on the activations at which its accuracy collapses.

Accuracy saturates when the classes are apart; the noise that a probe bears goes on growing with their distance. Source: arXiv:2606.11375,
which adds noise of five levels; of a linear probe the expected accuracy under noise is known in closed form, so that no noise is drawn.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric

COLLAPSED_ACCURACY = 0.6
"""Balanced accuracy at which a probe counts as broken, as in the source."""
_DECADES, _POINTS, _BISECTIONS = 5.0, 25, 10


def fragility(
    scores: Float[Tensor, "site example"], y: Bool[Tensor, " example"], *, collapsed: float = COLLAPSED_ACCURACY
) -> Float[Tensor, " site"]:
    """Smallest standard deviation of isotropic noise at which the expected balanced accuracy is `collapsed`, in units of the scores.

    0 if the probe is no better without noise; NaN for NaN scores or a missing class. Source: arXiv:2606.11375.

    Args:
        scores: Signed distances from the probe's plane: its linear score divided by the length of its direction.
        collapsed: Above 0.55, the accuracy that noise of ten times the largest score leaves at most.
    """
    margins, known = _margins(scores, y)
    return first_crossing(margins, y, collapsed).where(known, torch.nan).to(scores.dtype)


def hits_under_noise(
    margins: Float[Tensor, "site example"], y: Bool[Tensor, " example"], noise: Float[Tensor, " site"]
) -> Float[Tensor, "site example"]:
    """Probability of a correct prediction for each example; weighted so that the mean is the balanced accuracy.

    Args:
        margins: Distance of each example from the probe's plane, positive on its own side.
        noise: Standard deviation of the noise at each site.
    """
    weights = torch.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum())).to(margins.dtype)
    # Without noise an example on the plane counts half.
    ratio = torch.where(noise[:, None] > 0, margins / noise[:, None], margins.sign() * torch.inf).nan_to_num(0.0)
    hits: Tensor = torch.special.ndtr(ratio) * weights
    return hits


def first_crossing(
    margins: Float[Tensor, "site example"],
    y: Bool[Tensor, " example"],
    level: float,
    *,
    curve: Float[Tensor, "point site"] | None = None,
) -> Float[Tensor, " site"]:
    """Smallest noise at which the expected balanced accuracy is at most `level`; 0 if it is without noise, infinity if it never is.

    Args:
        curve: The accuracy on `noise_grid`, if known.
    """
    grid = noise_grid(margins)
    if curve is None:
        curve = torch.stack([hits_under_noise(margins, y, noise).mean(-1) for noise in grid])
    below = curve <= level
    first = below.int().argmax(0)
    low, high = (grid.gather(0, (first - back).clamp(min=0)[None])[0] for back in (1, 0))
    for _ in range(_BISECTIONS):
        middle = (low * high).sqrt()
        under = hits_under_noise(margins, y, middle).mean(-1) <= level
        low, high = torch.where(under, low, middle), torch.where(under, middle, high)
    return _ends(below, (low * high).sqrt())


def noise_grid(margins: Float[Tensor, "site example"]) -> Float[Tensor, "point site"]:
    """Noise from nearly none to ten times the largest margin, at which the accuracy is below .54, evenly spaced in its logarithm."""
    factors = torch.logspace(-_DECADES, 0, _POINTS, dtype=margins.dtype, device=margins.device)
    return 10 * factors[:, None] * margins.abs().amax(-1)


def interpolated_crossing(
    grid: Float[Tensor, "point site"], curve: Float[Tensor, "point site"], level: float
) -> Float[Tensor, " site"]:
    """The first noise at which a curve on a grid falls to `level`, interpolated in one over the noise; 0 and infinity as above."""
    below = curve <= level
    after = below.int().argmax(0)[None]
    before = (after - 1).clamp(min=0)
    top, bottom = (curve.gather(0, at)[0] for at in (before, after))
    share = torch.where(top > bottom, (top - level) / (top - bottom), 1.0)
    low, high = (grid.gather(0, at)[0] for at in (before, after))
    # The accuracy above chance falls nearly with one over the noise.
    return _ends(below, 1 / ((1 - share) / low + share / high))


def _ends(below: Bool[Tensor, "point site"], inside: Tensor) -> Tensor:
    return torch.where(below.any(0), torch.where(below[0], 0.0, inside), torch.inf)


def _margins(scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if scores.shape[-1:] != y.shape or len(y) == 0:
        raise BadInput(
            f"fragility needs one label per score and at least one, got {scores.shape[-1]} scores and {len(y)} labels."
        )
    known = ~scores.isnan().any(-1) & bool(y.any()) & bool((~y).any())
    return torch.where(known[:, None], torch.where(y, scores, -scores), 0.0), known


metrics = (
    Metric(
        "fragility",
        fragility,
        "scores, labels",
        0.0,
        None,
        frozenset({"permutation"}),
        "accuracy on activations with drawn noise",
    ),
)
