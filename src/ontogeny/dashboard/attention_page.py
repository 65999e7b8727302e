"""Page about the attention of models without a run: any model with a table, image models too, at several checkpoints if you like."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ontogeny.activations.attention_vectors import batch_attention_vectors
from ontogeny.activations.patch_labels import HUES, patch_labels
from ontogeny.dashboard.attention import read_typed_texts
from ontogeny.dashboard.attention_picture import AttentionReading, check_heads, draw_attention, planes_of
from ontogeny.dashboard.export import site_page
from ontogeny.errors import BadInput
from ontogeny.models.model import Model, image_sides
from ontogeny.storage.files import atomic_path

_MOST_IMAGES, _MOST_PATCHES = 16, 2048
_SHOWN_SIDE = 96
"""Pixels of a side of an image on the page."""


def write_attention_page(
    models: Iterable[tuple[str, Model]],
    out: Path,
    *,
    texts: Sequence[str] = (),
    images: Float[Tensor, "image 3 height width"] | None = None,
) -> Path:
    """Write a page that opens from disk: queries and keys of every head, one head with its attention, a slider over the models.

    Args:
        models: A label and a model for each checkpoint, in order; all of one shape. From `load_model`, or `load_image_model`.
        out: The file, such as attention.html.
        texts: Texts for language models, all in one space; an empty line in one begins another.
        images: Images for image models, from −1 to 1, of the sides that the model reads; all in one space.

    Returns:
        The page.

    Raises:
        BadInput: no model, texts for an image model or images for another one, too many of them, or a family whose attention cannot be
            reached.
    """
    if isinstance(texts, str):
        raise BadInput(f"`texts` must be a list of texts, got the text {texts[:40]!r}: put it into a list.")
    if out.is_dir():
        raise BadInput(f"`out` must be a file, got the folder {out}: name one in it, such as attention.html.")
    labels, readings, extra = list[str](), list[AttentionReading](), dict[str, Any]()
    for label, model in models:
        if model.architecture.images != (images is not None) or (images is None) == (not texts):
            wanted = "images" if model.architecture.images else "texts"
            raise BadInput(
                f"`{wanted}` must be given, and nothing else, for a model that reads {wanted}, {label!r}: give them."
            )
        check_heads(model)
        labels.append(label)
        if images is None:
            readings.append(read_typed_texts(model, "\n\n".join(texts)))
        else:
            reading, extra = _read_images(model, images)
            readings.append(reading)
    if not readings:
        raise BadInput("`models` must hold at least one model, got none: give a label and a model.")
    shown = f"{len(images)} images" if images is not None else "\n\n".join(texts)
    moments = [
        {"stage": "", "step": number, "address": str(number), "label": label, "age": float(number), "tokens": None}
        for number, label in enumerate(labels)
    ]
    data = {
        f"attention\n{shown}\n\n{number}": draw_attention(reading, planes_of(reading, readings[-1], "norm")) | extra
        for number, reading in enumerate(readings)
    }
    described = {"lineage": "attention", "checkpoints": moments, "ticks": [], "concepts": [], "metrics": {}}
    site = {
        "described": described,
        "metrics": [],
        "parts": {},
        "panels": [{"name": "attention", "label": "Attention", "title": ""}],
        "texts": [shown],
        "chats": [],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        temporary.write_text(site_page("attention", site, data), encoding="utf-8", newline="\n")
    return out


def _read_images(
    model: Model, images: Float[Tensor, "image 3 height width"]
) -> tuple[AttentionReading, dict[str, Any]]:
    """Queries and keys of the class token and the patches, and what the page shows of the images."""
    if not 1 <= len(images) <= _MOST_IMAGES:
        raise BadInput(f"`images` must be 1 to {_MOST_IMAGES}, got {len(images)}: choose some.")
    wanted = (3, *image_sides(model.network.config.image_size))
    if tuple(images.shape[1:]) != wanted or not images.isfinite().all():
        raise BadInput(
            f"`images` must be finite, of shape {list(wanted)} each, got {list(images.shape[1:])}: resize or repair them."
        )
    patch, (height, width) = image_sides(model.network.config.patch_size)[0], wanted[1:]
    named = patch_labels(images, patch)
    rows, columns = height // patch, width // patch
    if (count := len(images) * (1 + rows * columns)) > _MOST_PATCHES:
        raise BadInput(
            f"`images` must have at most {_MOST_PATCHES:,} patches together, got {count:,}: choose fewer images."
        )
    names = ["class token", *(f"row {row}, column {column}" for row in range(rows) for column in range(columns))]
    vectors = batch_attention_vectors(model, images.to(model.network.dtype))
    reading = AttentionReading([names] * len(images), vectors, [torch.arange(len(names))] * len(images))
    values = {name: _with_class_token(labels, HUES if name == "hue" else ()) for name, labels in named.items()}
    return reading, {"labels": values, "images": [_shown_image(image, rows, columns) for image in images]}


def _with_class_token(labels: Tensor, names: Sequence[str]) -> list[Any]:
    """The label of every token, None for the class token."""
    return [value for row in labels.tolist() for value in (None, *(names[i] if names else i for i in row))]


def _shown_image(image: Float[Tensor, "3 height width"], rows: int, columns: int) -> dict[str, Any]:
    """An image of at most 96 pixels a side, as bytes of red, green and blue."""
    side = min(image.shape[1], _SHOWN_SIDE), min(image.shape[2], _SHOWN_SIDE)
    small = adaptive_avg_pool2d(((image.float().cpu() + 1) / 2).clamp(0, 1)[None], side)[0]
    data = (255 * small).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy().tobytes()
    return {"rows": rows, "columns": columns, "side": list(side), "pixels": base64.b64encode(data).decode()}
