"""How deep and wide a model is, as its config.json says: what can be refused before anything is opened."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.models import loading
from ontogeny.models.onednn import packed_linears
from ontogeny.sites import expand_sites

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")
_HEAD_KEYS = ("num_attention_heads", "n_head", "num_heads")
_WIDTH_KEYS = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True)
class ModelShape:
    layers: int | None
    heads: int | None
    width: int | None
    """None where the config does not say it under a usual name."""


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """Layers, heads and width by the names that families give them; of the part that reads texts, where there are several."""
    inside = config.get("text_config")
    told = {**config, **inside} if isinstance(inside, dict) else config
    return ModelShape(*(_integer_setting(told, names) for names in (_LAYER_KEYS, _HEAD_KEYS, _WIDTH_KEYS)))


@dataclass(frozen=True)
class ModelSize:
    parameters: int
    products: int
    """Multiplications a token costs in the body: entries of its maps, not of embeddings or `lm_head`; of experts, those asked."""


def model_size(checkpoint: Checkpoint, *, weights: int) -> ModelSize:
    """From the config alone, by a network without memory; where none can be built, from the bytes of its `weights`, as if float32."""
    config = network = None
    try:
        config = loading.parse_config(checkpoint_config(checkpoint))
        with torch.device("meta"):
            network = loading.random_network(config) if config is not None else None
    except BadInput:
        pass  # whoever opens it says what is wrong with it
    if config is None or network is None:
        return ModelSize(weights // 4, weights // 4)
    tables = {id(m.weight) for m in network.base_model.modules() if isinstance(m, nn.Embedding)}
    asked = getattr(config.get_text_config(), "num_experts_per_tok", None) or 1
    products = 0.0
    for p in network.base_model.parameters():
        if p.ndim > 1 and id(p) not in tables:
            # Experts lie side by side in one tensor, of which a token meets a few.
            products += p.numel() * (min(asked, p.shape[0]) / p.shape[0] if p.ndim > 2 else 1)
    return ModelSize(sum(p.numel() for p in network.parameters()), round(products))


def check_sites_exist(checkpoint: Checkpoint, patterns: str) -> None:
    """Refuse layers and heads that the model does not have.

    Raises:
        BadInput: a pattern names one, or is no site.
    """
    if "." not in patterns:
        return
    try:
        shape = model_shape(checkpoint_config(checkpoint))
    except CheckpointError:
        return  # whoever opens it says what is wrong with it
    if shape.layers and shape.heads:
        try:
            expand_sites(patterns, layers=shape.layers, heads=shape.heads)
        except BadInput as error:
            raise BadInput(f"{error} Name other sites with --sites.") from None


def check_family_supported(checkpoint: Checkpoint) -> None:
    """Refuse a model that cannot be read, before gigabytes of it are fetched.

    Raises:
        BadInput: it reads images, or nothing describes it.
    """
    try:
        config = loading.parse_config(checkpoint_config(checkpoint))
    except CheckpointError:
        return  # whoever opens it says what is wrong with it
    if config is not None:
        loading.check_loadable(config)


def _integer_setting(told: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((told[name] for name in names if isinstance(told.get(name), int) and told[name] > 0), None)


def measure_flops_per_second(device: str, dtype: torch.dtype) -> float:
    """Measured rate of a linear map of a model's shape, run as a trace runs it, per second."""
    linear, x = nn.Linear(768, 3072, device=device, dtype=dtype), torch.randn(512, 768, device=device, dtype=dtype)
    rounds, best = 5, 0.0
    with torch.inference_mode(), packed_linears(nn.Sequential(linear)):
        for _ in range(3):  # the first pays for what is made once
            began = time.perf_counter()
            for _ in range(rounds):
                y = linear(x)
            y.sum().item()
            best = max(best, 2 * 512 * 768 * 3072 * rounds / (time.perf_counter() - began))
    return best
