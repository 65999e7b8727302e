"""An encoder over images through the same standard names (ViT): the caller prepares the pixels, since there is no tokenizer.

Sites, reading and writing are those of a language model (`ontogeny.models.model`); `capture` gives what the fits take. A concept of texts
cannot be traced through such a model, and says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ontogeny import architectures
from ontogeny.errors import BadInput, unknown_name
from ontogeny.models.hooks import read_hooks
from ontogeny.models.loading import (
    check_finite_weights,
    load_network,
    no_text_error,
    random_network,
    read_config,
    silence_transformers,
)
from ontogeny.models.model import Model, model_from_network
from ontogeny.sites import Site

ImagePooling = Literal["first", "mean"]
"""What stands for an image: its first token (the class token), or the mean over its patches."""


class NoTokenizer:
    """In the place of a tokenizer: whoever asks it for anything is told that this model reads no texts."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask for what need not be there
            raise AttributeError(name)
        raise no_text_error(self._kind)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise no_text_error(self._kind)


def load_image_model(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, allow_pickle: bool = False
) -> Model:
    """The model of a checkpoint folder, in evaluation mode.

    Raises:
        CheckpointFault: weights that are missing, cut short or not finite.
        BadInput: a model that reads no images.
    """
    silence_transformers()
    _check_image_model(read_config(folder).model_type)
    network = load_network(folder, dtype, allow_pickle)
    check_finite_weights(network, folder)
    return model_from_network(network.to(device).eval(), _not_an_image_model(network.config.model_type))


def untrained_image_model(folder: Path, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """The same architecture with freshly initialised weights: the floor that training must beat."""
    silence_transformers()
    _check_image_model(read_config(folder).model_type)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = random_network(read_config(folder), dtype)
    return model_from_network(network.to(device).eval(), _not_an_image_model(network.config.model_type))


@torch.inference_mode()
def capture_images(
    model: Model,
    pixels: Float[Tensor, "image channel height width"],
    sites: Sequence[Site],
    *,
    pool: ImagePooling = "first",
    batch: int = 32,
) -> Mapping[Site, Float[Tensor, "image d"]]:
    """Pooled activations of each image at each site, float32, from prepared pixels (scaled and cut as the model was trained on).

    Raises:
        BadInput: pixels of another shape than the model was built for, or a rule of pooling that is none.
    """
    if pool not in get_args(ImagePooling):
        raise unknown_name("rule of pooling", pool, get_args(ImagePooling))
    config = model.network.config
    _check_image_model(config.model_type)
    wanted = (config.num_channels, *_image_size(config.image_size))
    if tuple(pixels.shape[1:]) != wanted:
        raise BadInput(
            f"images of shape {list(pixels.shape[1:])} were given, the model reads {list(wanted)}. Resize them."
        )
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def sink(part: str, layer: int, value: Float[Tensor, "image token d"]) -> None:
        pooled = (value[:, 0] if pool == "first" else value[:, 1:].mean(1)).float()
        for site in (site for site in sites if (site.part, site.layer) == (part, layer)):
            width = (
                slice(None) if site.head is None else slice(site.head * model.d_head, (site.head + 1) * model.d_head)
            )
            found[site].append(pooled[:, width])

    with read_hooks(model, sorted({(site.part, site.layer) for site in sites}), sink):
        for some in torch.split(pixels, batch):
            model.body(pixel_values=some.to(model.device, model.network.dtype))
    return {site: torch.cat(parts) for site, parts in found.items()}


def _check_image_model(kind: str) -> None:
    table = architectures.find_architecture(kind)
    if table is None or not table.images:
        raise BadInput(
            f"{kind} reads texts, not images. Trace it with concept files, or open an image model such as ViT."
        )


def _not_an_image_model(kind: str) -> PreTrainedTokenizerBase:
    return cast(PreTrainedTokenizerBase, NoTokenizer(kind))


def _image_size(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
