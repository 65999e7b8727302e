"""Image encoders (ViT) under the same standard names; the caller prepares the pixels.

Sites and hooks are those of a language model; `capture_images` returns activations for the probes. Concepts made of texts cannot
be traced through such a model: `NoTokenizer` raises an error.
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
from ontogeny.models.model import Model, image_sides, model_from_network
from ontogeny.models.multi_gpu import resolve_device
from ontogeny.sites import Site

ImagePooling = Literal["first", "mean"]
"""Activation of an image: its first token (the class token), or the mean over its patches."""


class NoTokenizer:
    """Placeholder tokenizer that raises "this model does not read text"."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle look for optional methods
            raise AttributeError(name)
        raise no_text_error(self._kind)

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise no_text_error(self._kind)


def load_image_model(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, allow_pickle: bool = False
) -> Model:
    """Load the image model of a checkpoint folder, in evaluation mode; arguments as for `load_model`.

    Raises:
        CheckpointError: the weights are missing, incomplete or not finite.
        BadInput: the model does not read images.
    """
    silence_transformers()
    _check_image_model(read_config(folder).model_type)
    network = load_network(folder, dtype, allow_pickle)
    check_finite_weights(network, folder)
    return model_from_network(network.to(resolve_device(device)).eval(), _no_tokenizer(network.config.model_type))


def untrained_image_model(folder: Path, *, seed: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """The architecture of a checkpoint with freshly initialised weights, as the baseline for training."""
    silence_transformers()
    _check_image_model(read_config(folder).model_type)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = random_network(read_config(folder), dtype)
    return model_from_network(network.to(resolve_device(device)).eval(), _no_tokenizer(network.config.model_type))


@torch.inference_mode()
def capture_images(
    model: Model,
    pixels: Float[Tensor, "image channel height width"],
    sites: Sequence[Site],
    *,
    pool: ImagePooling = "first",
    batch: int = 32,
) -> Mapping[Site, Float[Tensor, "image d"]]:
    """Pooled activations of each image at each site, float32.

    Args:
        pixels: Images scaled and cropped as for the model's training.
        pool: `first` for the class token, `mean` for the mean over the patches.
        batch: Images per forward pass.

    Raises:
        BadInput: the pixels have the wrong shape, or `pool` is unknown.
    """
    if pool not in get_args(ImagePooling):
        raise unknown_name("pooling", pool, get_args(ImagePooling))
    config = model.network.config
    _check_image_model(config.model_type)
    wanted = (config.num_channels, *image_sides(config.image_size))
    if tuple(pixels.shape[1:]) != wanted:
        raise BadInput(f"`pixels` must be images of shape {list(wanted)}, got {list(pixels.shape[1:])}: resize them.")
    pooled: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def sink(part: str, layer: int, value: Float[Tensor, "image token d"]) -> None:
        rows = (value[:, 0] if pool == "first" else value[:, 1:].mean(1)).float()
        for site in (site for site in sites if (site.part, site.layer) == (part, layer)):
            head = slice(None) if site.head is None else slice(site.head * model.d_head, (site.head + 1) * model.d_head)
            pooled[site].append(rows[:, head])

    with read_hooks(model, sorted({(site.part, site.layer) for site in sites}), sink):
        for some in torch.split(pixels, batch):
            model.body(pixel_values=some.to(model.device, model.network.dtype))
    return {site: torch.cat(parts) for site, parts in pooled.items()}


def _check_image_model(kind: str) -> None:
    table = architectures.find_architecture(kind)
    if table is None or not table.images:
        raise BadInput(
            f"{kind} reads texts, not images: open an image model such as ViT, or trace the model with concepts."
        )


def _no_tokenizer(kind: str) -> PreTrainedTokenizerBase:
    return cast(PreTrainedTokenizerBase, NoTokenizer(kind))
