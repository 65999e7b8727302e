"""Autoencoders in the format of SAELens: a folder with `cfg.json` and `sae_weights.safetensors`.

Read: folders of version 6, and those of earlier versions, whose config is flat. SAELens has no sparsemax.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.sae.autoencoder import SparseAutoencoder, check_finite
from ontogeny.sites import Site
from ontogeny.storage.files import read_tensors, write_json, write_tensors

SAELENS_VERSION = "6.54.12"
"""The version whose format is written."""
_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
_ARCHITECTURES = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
_HOOKS = {"resid": "blocks.{}.hook_resid_post", "attn": "blocks.{}.hook_attn_out", "mlp": "blocks.{}.hook_mlp_out"}


def save_saelens(
    autoencoder: SparseAutoencoder, folder: str | Path, *, model: str | None = None, site: Site | None = None
) -> Path:
    """Write an autoencoder as SAELens does; existing files are replaced.

    Args:
        model: Name of the model, for the metadata.
        site: Site that it was trained on, for the metadata.

    Raises:
        BadInput: a sparsemax, or weights that are not finite.
    """
    names = {own: theirs for theirs, own in _ARCHITECTURES.items()}
    if autoencoder.activation not in names:
        raise BadInput(
            f"SAELens has no {autoencoder.activation}: export one of {', '.join(names)}, or keep the file of the run."
        )
    check_finite(autoencoder)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"`folder` must be a folder, got the file {folder}: choose another name.")
    metadata = {"sae_lens_version": SAELENS_VERSION, "sae_lens_training_version": None, "model_name": model}
    config: dict[str, Any] = {
        "d_in": autoencoder.width,
        "d_sae": autoencoder.latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": autoencoder.centre_input,
        "normalize_activations": "constant_norm_rescale" if autoencoder.token_scale else "none",
        "reshape_activations": "none",
        "metadata": metadata | {"hook_name": hook_name(site), "prepend_bos": True},
        "architecture": names[autoencoder.activation],
    }
    tensors = {
        "W_enc": autoencoder.encoder,
        "b_enc": autoencoder.encoder_bias,
        "W_dec": autoencoder.decoder,
        "b_dec": autoencoder.decoder_bias,
    }
    if autoencoder.threshold is not None:
        tensors["threshold"] = autoencoder.threshold
    if autoencoder.activation == "topk":
        config |= {"k": autoencoder.k, "rescale_acts_by_decoder_norm": False}
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(
        folder / _WEIGHTS, {name: value.float().cpu().contiguous() for name, value in tensors.items()}, {"format": "pt"}
    )
    write_json(folder / _CONFIG, config)
    return folder


def load_saelens(folder: str | Path) -> SparseAutoencoder:
    """Read an autoencoder that SAELens, or `save_saelens`, wrote.

    Raises:
        BadInput: files are missing or damaged, or it has an architecture or a scaling that is not known here.
    """
    folder = Path(folder)
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise BadInput(
                f"`folder` must hold {_CONFIG} and {_WEIGHTS}, got {folder} without {name}: name the folder of one."
            )
    config, tensors = _read_config(folder / _CONFIG), read_tensors(folder / _WEIGHTS)
    tensors = {name: value.float() for name, value in tensors.items()}
    architecture, k = _architecture(config)
    if architecture not in _ARCHITECTURES:
        raise BadInput(
            f"the architecture must be one of {', '.join(_ARCHITECTURES)}, got {architecture} in {folder}: convert it with SAELens first."
        )
    needed = {"W_enc", "b_enc", "W_dec", "b_dec"} | ({"threshold"} if architecture == "jumprelu" else set())
    if missing := sorted(needed - set(tensors)):
        raise BadInput(
            f"{folder / _WEIGHTS} must hold {', '.join(sorted(needed))}, got none of the name {missing[0]}: export it again."
        )
    if "scaling_factor" in tensors and not bool((tensors["scaling_factor"] == 1).all()):
        raise BadInput(
            f"{folder} has a scaling factor of fine-tuning, which is not read here: fold it into W_dec first."
        )
    scaling = config.get("normalize_activations", "none")
    if scaling not in ("none", "constant_norm_rescale", False):
        raise BadInput(
            f"`normalize_activations` must be none or constant_norm_rescale, got {scaling} in {folder}: fold it into the weights "
            "with SAELens first."
        )
    encoder, decoder, bias = tensors["W_enc"], tensors["W_dec"], tensors["b_enc"]
    threshold = tensors.get("threshold") if architecture == "jumprelu" else None
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm", False):
        # Scores are compared after a factor, which the latents keep and the decoder takes back.
        norm = decoder.norm(dim=-1).clamp(min=1e-8)
        encoder, bias, decoder = encoder * norm, bias * norm, decoder / norm[:, None]
    autoencoder = SparseAutoencoder(
        _ARCHITECTURES[architecture],
        encoder,
        bias,
        decoder,
        tensors["b_dec"],
        threshold,
        k=k,
        centre_input=bool(config.get("apply_b_dec_to_input", True)),
        token_scale=scaling == "constant_norm_rescale",
    )
    check_finite(autoencoder)
    return autoencoder


def hook_name(site: Site | None) -> str | None:
    """The name that SAELens's hooks give a site; None for a site that they do not have."""
    if site is None:
        return None
    if site.part == "resid" and site.layer == 0:
        return "blocks.0.hook_resid_pre"
    return _HOOKS[site.part].format(site.layer - 1) if site.part in _HOOKS else None


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} must be a JSON object, got {error}: export it again.") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path} must be a JSON object, got a {type(config).__name__}: export it again.")
    return config


def _architecture(config: Mapping[str, Any]) -> tuple[str, int]:
    """Architecture and k; before version 6 a top-k was a standard autoencoder with another activation function."""
    architecture, k = config.get("architecture", "standard"), config.get("k", 0)
    function = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if architecture == "standard" and function == "topk":
        architecture, k = "topk", (config.get("activation_fn_kwargs") or {}).get("k", 0)
    elif architecture == "standard" and function != "relu":
        architecture = f"standard with {function}"
    if architecture == "topk" and not (isinstance(k, int | float) and math.isfinite(k) and k >= 1 and k == int(k)):
        raise BadInput(f"`k` of a topk must be a whole number from 1, got {k}: export it again.")
    return architecture, int(k) if architecture == "topk" else 0
