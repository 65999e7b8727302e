"""Labels of image patches: row, column, hue and brightness, on which heads of an image model may be keyed (arXiv:2305.03210)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput

PATCH_LABELS = ("row", "column", "hue", "brightness")
HUES = ("grey", "red", "yellow", "green", "cyan", "blue", "magenta")
"""Names of the values of `hue`."""
_SATURATED = 0.25
"""Difference of the brightest and the darkest channel, of 1, below which a colour is grey."""
_BRIGHTNESS_LEVELS = 4


def patch_labels(images: Float[Tensor, "image 3 height width"], patch: int) -> dict[str, Int[Tensor, "image patch"]]:
    """The labels of every patch, in the order of `PATCH_LABELS`; patches by row, then column.

    Hue is that of the most saturated pixel, brightness the quarter of the patch's mean among all patches.

    Args:
        images: From -1 to 1.
        patch: Pixels of a side.

    Raises:
        BadInput: the sides are not multiples of the patch.
    """
    count, _, height, width = images.shape
    if height % patch or width % patch:
        raise BadInput(f"`patch` must divide the sides of the images, {height} and {width} pixels, got {patch}.")
    rows, columns = height // patch, width // patch
    shown = ((images + 1) / 2).clamp(0, 1)
    cells = shown.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 4, 5, 1)
    pixels = cells.reshape(count, rows * columns, patch * patch, 3)
    spread = pixels.amax(-1) - pixels.amin(-1)
    at = spread.argmax(-1, keepdim=True)
    colour = pixels.take_along_dim(at[..., None], 2).squeeze(2)
    bright = pixels.mean((-1, -2))
    levels = bright.flatten().quantile(torch.linspace(0, 1, _BRIGHTNESS_LEVELS + 1)[1:-1])
    place = torch.arange(rows * columns).expand(count, -1)
    grey = spread.amax(-1) <= _SATURATED
    return {
        "row": place // columns,
        "column": place % columns,
        "hue": torch.where(grey, 0, 1 + _sextant(colour)),
        "brightness": torch.bucketize(bright.contiguous(), levels),
    }


def _sextant(colour: Float[Tensor, "*point 3"]) -> Int[Tensor, "*point"]:
    """The nearest of red, yellow, green, cyan, blue and magenta, from 0."""
    red, green, blue = colour.unbind(-1)
    angle = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue)
    return (angle / (torch.pi / 3)).round().long() % 6
