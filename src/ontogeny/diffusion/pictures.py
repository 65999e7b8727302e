"""Small images as text, so that a row of the table carries its picture: PNG as a data URL (RFC 2397)."""

import base64
import io

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput

LARGEST_SIDE = 256
"""Pixels; a larger picture is not part of a table."""


def picture_url(pixels: Float[Tensor, "*channel row column"]) -> str:
    """An image of three channels from -1 to 1, or a mask or depth from 0 to 1 in grey, as a data URL.

    Raises:
        BadInput: another number of channels, or a side above 256 pixels.
    """
    colour = pixels.ndim == 3 and len(pixels) == 3
    if not (colour or pixels.ndim == 2) or max(pixels.shape[-2:]) > LARGEST_SIDE:
        raise BadInput(
            f"a picture must be 3 × rows × columns, or rows × columns, of at most {LARGEST_SIDE} pixels a side, got "
            f"{tuple(pixels.shape)}: shrink it."
        )
    shown = (pixels.float() + 1) / 2 if colour else pixels.float()
    values = (shown.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    rows = (values.movedim(0, -1) if colour else values).contiguous().numpy()
    from PIL import Image  # with the extra `diffusion`

    content = io.BytesIO()
    Image.fromarray(rows).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
