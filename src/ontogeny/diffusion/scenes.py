"""Procedural scenes with exact depth and mask: one to three shapes on a grey gradient, painted from far to near.

A nearer shape is larger and brighter, and colours are saturated while the background is grey: mask and depth can be read back from any
image by a rule, exactly for painted scenes, so that generated images have labels too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput

_NEAR, _FAR, _BACKGROUND = 0.1, 0.9, 1.0
"""Depths of shapes, and of the background."""
_DIMMING = 0.6
"""Brightness that a shape loses from depth 0 to 1."""
_SATURATED = 0.25
"""Difference of the brightest and the darkest channel above which a pixel is part of a shape; the dimmest shape has 0.46."""
_COLOURS = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1)], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with their labels."""

    images: Float[Tensor, "image 3 side side"]
    """From -1 to 1."""
    depth: Float[Tensor, "image side side"]
    """From 0, near, to 1, the background."""
    mask: Bool[Tensor, "image side side"]
    """Whether a pixel shows a shape."""


def make_scenes(count: int, *, side: int = 16, most_shapes: int = 3, seed: int = 0) -> Scenes:
    """Paint random scenes.

    Raises:
        BadInput: no image, no shape, or a side below 8 pixels.
    """
    if count < 1 or most_shapes < 1 or side < 8:
        raise BadInput(
            f"scenes must be at least one image of 8 pixels a side with one shape, got {count} images of {side} pixels with "
            f"{most_shapes}: choose larger numbers."
        )
    rng = np.random.default_rng([seed, side, most_shapes])
    rows, columns = np.mgrid[:side, :side] + 0.5
    images = np.empty((count, 3, side, side), dtype=np.float32)
    depth = np.full((count, side, side), _BACKGROUND, dtype=np.float32)
    slope, base = rng.uniform(-0.15, 0.15, (count, 2)), rng.uniform(0.3, 0.45, count)
    for i in range(count):
        grey = base[i] + slope[i, 0] * (rows / side - 0.5) + slope[i, 1] * (columns / side - 0.5)
        images[i] = grey
        for z in np.sort(rng.uniform(_NEAR, _FAR, rng.integers(1, most_shapes + 1)))[::-1]:
            radius = side * (0.28 - 0.17 * z)
            y, x = rng.uniform(radius, side - radius, 2)
            far = np.hypot(rows - y, columns - x) if rng.random() < 0.5 else np.maximum(abs(rows - y), abs(columns - x))
            inside = far <= radius
            images[i][:, inside] = _COLOURS[rng.integers(len(_COLOURS)), :, None] * (1 - _DIMMING * z)
            depth[i][inside] = z
    tensors = torch.from_numpy(images) * 2 - 1, torch.from_numpy(depth)
    return Scenes(*tensors, tensors[1] < _BACKGROUND)


def read_scenes(images: Float[Tensor, "image 3 side side"]) -> Scenes:
    """Labels of any images by the rule of the painter: saturated pixels are shapes, and brighter ones are nearer."""
    shown = ((images + 1) / 2).clamp(0, 1)
    bright, dark = shown.amax(1), shown.amin(1)
    mask = bright - dark > _SATURATED
    depth = torch.where(mask, ((1 - bright) / _DIMMING).clamp(0, 1), torch.full_like(bright, _BACKGROUND))
    return Scenes(images, depth, mask)
