"""Linear probes per location: each pixel's mask or depth from the channels of a block at its place.

Prediction is one linear map for all places, enlarged to the image by repeating; least squares with a small ridge. Source: arXiv:2306.05720,
where a linear classifier and a regressor are fitted by gradient descent.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput

_RIDGE = 1e-3
"""Share of the mean variance of a channel that is added to each."""


@dataclass(frozen=True, eq=False)
class SpatialProbe:
    """A linear map from channels to one number at each place."""

    weight: Float[Tensor, " channel"]
    bias: float
    pattern: Float[Tensor, " channel"]
    """Covariance of the channels with the prediction, in units that raise the prediction by 1: how activations differ where it is
    higher (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067)."""

    def read(self, x: Float[Tensor, "image channel row column"], side: int) -> Float[Tensor, "image side side"]:
        """Predictions at the size of the image."""
        return enlarge(torch.einsum("nchw,c->nhw", x, self.weight.to(x)) + self.bias, side)


def enlarge(values: Float[Tensor, "image row column"], side: int) -> Float[Tensor, "image side side"]:
    """Values at the size of the image, each repeated over its cell."""
    return torch.nn.functional.interpolate(values[:, None], size=(side, side), mode="nearest")[:, 0]


def shrink(values: Float[Tensor, "image side side"], rows: int) -> Float[Tensor, "image rows rows"]:
    """Means of the image's values over the cells of a block: least squares against them is that against all their pixels."""
    return torch.nn.functional.adaptive_avg_pool2d(values[:, None].float(), rows)[:, 0]


def fit_spatial_probe(
    x: Float[Tensor, "image channel row column"], target: Float[Tensor, "image side side"]
) -> SpatialProbe:
    """Fit a probe of a target, a mask of 0 and 1 or a depth.

    Raises:
        BadInput: the images differ in number, or a block is larger than the image.
    """
    if len(x) != len(target) or x.shape[-1] > target.shape[-1]:
        raise BadInput(
            f"activations and targets must be of the same images, and blocks no larger than they, got {tuple(x.shape)} and "
            f"{tuple(target.shape)}: shrink the activations, or give the labels of these images."
        )
    flat = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
    y = shrink(target, x.shape[-1]).reshape(-1).double()
    mean, centre = flat.mean(0), y.mean()
    flat, y = flat - mean, y - centre
    gram = flat.T @ flat
    lift = _RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    weight = torch.linalg.solve(gram + lift * torch.eye(len(gram), dtype=gram.dtype), flat.T @ y)
    pattern = gram @ weight
    pattern = pattern / (pattern @ weight).clamp(min=1e-12)
    return SpatialProbe(weight.float(), float(centre - mean @ weight), pattern.float())


def fit_place_mean(target: Float[Tensor, "image side side"]) -> Float[Tensor, "side side"]:
    """The mean target at each place: what the place alone, without any activation, tells."""
    return target.float().mean(0)
