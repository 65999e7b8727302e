"""Push activations until a probe reads a target, no further than a share of their length.

For a probe that is linear at each place the change is known in closed form, so that no steps of gradient descent are needed
(arXiv:2306.05720 takes 128 of Adam). It lies along the probe's pattern, the direction in which activations differ where the probe reads
more: of all changes that reach the target this one is the most likely under the covariance of the activations. The shortest one lies along
the probe's weight, where activations vary little.

Push every block of a UNet: skip connections carry what is left as it was around the blocks that are pushed (`docs/log.md`).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.diffusion.denoiser import BlockEdit
from ontogeny.diffusion.spatial_probe import SpatialProbe, shrink
from ontogeny.errors import BadInput


def push_to_target(
    probe: SpatialProbe, target: Float[Tensor, "image side side"], *, strength: float = 1.0, bound: float = 0.5
) -> BlockEdit:
    """An edit after which the probe reads the target, or comes as near as the bound allows.

    Args:
        target: A mask of 0 and 1, or a depth, for each image.
        strength: Multiple of the change; above 1 the probe reads more than the target.
        bound: Largest length of the change, as a share of the length of the activation of its image.

    Raises:
        BadInput: the bound is not above 0.
    """
    check_bound(bound)

    def edit(x: Float[Tensor, "image channel row column"]) -> Float[Tensor, "image channel row column"]:
        gap = shrink(target, x.shape[-1]).to(x) - torch.einsum("nchw,c->nhw", x, probe.weight.to(x)) - probe.bias
        change = strength * gap[:, None] * probe.pattern.to(x)[None, :, None, None]
        return x + within_bound(change, x, bound)

    return edit


def push_at_random(like: BlockEdit, *, seed: int = 0) -> BlockEdit:
    """A change of the same length at each place as another edit's, in a random direction of the channels: its control."""

    def edit(x: Float[Tensor, "image channel row column"]) -> Float[Tensor, "image channel row column"]:
        change = like(x) - x
        drawn = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(seed)).to(x)
        sign = torch.randint(0, 2, change[:, :1].shape, generator=torch.Generator().manual_seed(seed + 1)).to(x) * 2 - 1
        moved: Tensor = x + change.norm(dim=1, keepdim=True) * sign * (drawn / drawn.norm())[None, :, None, None]
        return moved

    return edit


def push_as_far(edit: BlockEdit, like: BlockEdit) -> BlockEdit:
    """The change of an edit, made as long in each image as that of another edit: a control that pushes to another target."""

    def rescaled(x: Float[Tensor, "image channel row column"]) -> Float[Tensor, "image channel row column"]:
        change, length = edit(x) - x, (like(x) - x).flatten(1).norm(dim=1)
        factor = length / change.flatten(1).norm(dim=1).clamp(min=1e-12)
        moved: Tensor = x + change * factor[:, None, None, None]
        return moved

    return rescaled


def within_bound(
    change: Float[Tensor, "image channel row column"], x: Float[Tensor, "image channel row column"], bound: float
) -> Float[Tensor, "image channel row column"]:
    """The change of each image, shortened to a share of the length of its activation."""
    length, most = change.flatten(1).norm(dim=1), bound * x.flatten(1).norm(dim=1)
    shortened: Tensor = change * (most / length.clamp(min=1e-12)).clamp(max=1)[:, None, None, None]
    return shortened


def check_bound(bound: float) -> None:
    """Raise BadInput if a bound is not above 0."""
    if not (math.isfinite(bound) and bound > 0):
        raise BadInput(f"`bound` must be a finite share above 0, got {bound}: try 0.5.")
