"""How deep and wide a model is, as its config.json says: what can be refused before anything is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ontogeny import opening
from ontogeny.errors import BadInput, CheckpointFault
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.reading import config_of
from ontogeny.sites import expand

LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads")
WIDTH = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True)
class Shape:
    layers: int | None
    heads: int | None
    width: int | None
    """None where the config does not say it under a usual name."""


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Layers, heads and width by the names that families give them; of the part that reads texts, where there are several."""
    inside = config.get("text_config")
    told = {**config, **inside} if isinstance(inside, dict) else config
    return Shape(*(_whole(told, names) for names in (LAYERS, HEADS, WIDTH)))


@dataclass(frozen=True)
class Size:
    parameters: int
    products: int
    """Multiplications a token costs in the body: entries of its maps, not of embeddings or `lm_head`; of experts, those asked."""


def size_of(checkpoint: Checkpoint, *, weights: int) -> Size:
    """From the config alone, by a network without memory; where none can be built, from the bytes of its `weights`, as if float32."""
    config = network = None
    try:
        config = opening.config_from(config_of(checkpoint))
        with torch.device("meta"):
            network = opening.fresh(config) if config is not None else None
    except BadInput:
        pass  # whoever opens it says what is wrong with it
    if config is None or network is None:
        return Size(weights // 4, weights // 4)
    tables = {id(m.weight) for m in network.base_model.modules() if isinstance(m, nn.Embedding)}
    asked = getattr(config.get_text_config(), "num_experts_per_tok", None) or 1
    products = 0.0
    for p in network.base_model.parameters():
        if p.ndim > 1 and id(p) not in tables:
            # Experts lie side by side in one tensor, of which a token meets a few.
            products += p.numel() * (min(asked, p.shape[0]) / p.shape[0] if p.ndim > 2 else 1)
    return Size(sum(p.numel() for p in network.parameters()), round(products))


def check_sites(checkpoint: Checkpoint, patterns: str) -> None:
    """Refuse layers and heads that the model does not have.

    Raises:
        BadInput: a pattern names one, or is no site.
    """
    if "." not in patterns:
        return
    try:
        shape = shape_of(config_of(checkpoint))
    except CheckpointFault:
        return  # whoever opens it says what is wrong with it
    if shape.layers and shape.heads:
        try:
            expand(patterns, layers=shape.layers, heads=shape.heads)
        except BadInput as error:
            raise BadInput(f"{error} Name other sites with --sites.") from None


def check_family(checkpoint: Checkpoint) -> None:
    """Refuse a model that cannot be read, before gigabytes of it are fetched.

    Raises:
        BadInput: it reads images, or nothing describes it.
    """
    try:
        config = opening.config_from(config_of(checkpoint))
    except CheckpointFault:
        return  # whoever opens it says what is wrong with it
    if config is not None:
        opening.check_family(config)


def _whole(told: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((told[name] for name in names if isinstance(told.get(name), int) and told[name] > 0), None)
