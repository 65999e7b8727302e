"""Model shape from config.json, layers, heads and width, and the check of sites against it; loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.sites import expand_sites

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")
_HEAD_KEYS = ("num_attention_heads", "n_head", "num_heads")
_WIDTH_KEYS = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True)
class ModelShape:
    """Layers, heads and width; None where the config has no usual name for it."""

    layers: int | None
    heads: int | None
    width: int | None


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """Layers, heads and width from a config, under the names that families use; of a multimodal model the text part."""
    inside = config.get("text_config")
    settings = {**config, **inside} if isinstance(inside, dict) else config
    return ModelShape(*(_integer_setting(settings, names) for names in (_LAYER_KEYS, _HEAD_KEYS, _WIDTH_KEYS)))


def check_sites_exist(checkpoint: Checkpoint, patterns: str) -> None:
    """Check site patterns against the config.

    Raises:
        BadInput: a pattern is not a site, or names a layer or head that the model does not have.
    """
    parts = [pattern.strip().split(".")[0] for pattern in patterns.split(",")]
    expand_sites([part for part in parts if part], layers=1, heads=1)
    if "." not in patterns:
        return
    try:
        shape = model_shape(checkpoint_config(checkpoint))
    except CheckpointError:
        return  # loading raises the proper error
    if shape.layers and shape.heads:
        try:
            expand_sites(patterns, layers=shape.layers, heads=shape.heads)
        except BadInput as error:
            raise BadInput(f"{error} Name other `sites`.") from None


def _integer_setting(settings: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((settings[n] for n in names if isinstance(settings.get(n), int) and settings[n] > 0), None)
