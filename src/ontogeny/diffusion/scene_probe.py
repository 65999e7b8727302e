"""Probes of both labels of a scene, mask and depth, and their scores on images that they were not fitted on."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.diffusion.scenes import Scenes
from ontogeny.diffusion.scores import best_threshold, depth_error, dice, pixel_rank_correlation
from ontogeny.diffusion.spatial_probe import SpatialProbe, fit_place_mean, fit_spatial_probe
from ontogeny.errors import BadInput

SCORES = ("mask_dice", "depth_error", "depth_rank")
"""Dice of the mask; root mean squared error of the depth; its rank correlation over pixels."""


@dataclass(frozen=True, eq=False)
class SceneReading:
    """Mask and depth as they were read."""

    mask: Bool[Tensor, "image side side"]
    depth: Float[Tensor, "image side side"]

    def scores(self, labels: Scenes) -> dict[str, Float[Tensor, " image"]]:
        """Scores of each image, NaN where it has none."""
        return {
            "mask_dice": dice(self.mask, labels.mask),
            "depth_error": depth_error(self.depth, labels.depth),
            "depth_rank": pixel_rank_correlation(self.depth, labels.depth),
        }


@dataclass(frozen=True, eq=False)
class SceneProbe:
    """Linear probes of mask and depth."""

    mask: SpatialProbe
    depth: SpatialProbe
    threshold: float
    """Prediction above which a pixel is part of the mask, chosen on the images of the fit."""

    def read(self, x: Float[Tensor, "image channel row column"], side: int) -> SceneReading:
        return SceneReading(self.mask.read(x, side) > self.threshold, self.depth.read(x, side))


def fit_scene_probe(x: Float[Tensor, "image channel row column"], labels: Scenes) -> SceneProbe:
    """Fit probes of mask and depth.

    Raises:
        BadInput: activations and labels are of other images, or the labels are smaller than the activations.
    """
    check_labels(labels)
    mask = fit_spatial_probe(x, labels.mask.float())
    values = mask.read(x, labels.mask.shape[-1])
    return SceneProbe(mask, fit_spatial_probe(x, labels.depth), best_threshold(values, labels.mask))


def read_by_place(fit: Scenes, count: int) -> SceneReading:
    """The mean mask and depth of each place, for every image: a control."""
    mask, depth = (fit_place_mean(target) for target in (fit.mask, fit.depth))
    threshold = best_threshold(mask.expand(fit.mask.shape), fit.mask)
    return SceneReading((mask > threshold).expand(count, -1, -1), depth.expand(count, -1, -1))


def patches(
    pixels: Float[Tensor, "image channel row column"], side: int = 5
) -> Float[Tensor, "image window row column"]:
    """The neighbourhood of each pixel as its channels: a control that sees more than one pixel."""
    windows: Tensor = torch.nn.functional.unfold(pixels, side, padding=side // 2)
    return windows.reshape(*windows.shape[:2], *pixels.shape[2:])


def part_of(scenes: Scenes, images: slice) -> Scenes:
    """Some of the scenes."""
    return replace(scenes, images=scenes.images[images], depth=scenes.depth[images], mask=scenes.mask[images])


def check_labels(labels: Scenes) -> None:
    """Raise BadInput if mask and depth are not square and of one size."""
    mask, depth = tuple(labels.mask.shape), tuple(labels.depth.shape)
    if mask != depth or len(mask) != 3 or mask[1] != mask[2]:
        raise BadInput(
            f"mask and depth must be images × side × side, of one size, got {mask} and {depth}: crop or resize the labels."
        )
