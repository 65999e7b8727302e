"""Pipelines of `diffusers` on disk, pixel or latent: their UNet, scheduler, autoencoder and, for prompts, their text encoder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.diffusion.denoiser import Denoiser
from ontogeny.errors import BadInput

_LONGEST_PROMPT = 77
"""Tokens of a prompt, where neither tokenizer nor text encoder has a limit."""


def import_diffusers() -> Any:
    """The library `diffusers`.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import diffusers
    except ImportError:
        raise BadInput("diffusers must be installed for diffusion models: pip install 'ontogeny[diffusion]'.") from None
    return diffusers


def open_denoiser(
    folder: str | Path, *, prompts: Sequence[str] = (), guidance: float = 1.0, **condition: Any
) -> Denoiser:
    """The denoiser of a pipeline on disk; other parts are not loaded.

    Args:
        prompts: Texts, one for each image; needs the pipeline's tokenizer and text encoder.
        guidance: Weight of the prompt in classifier-free guidance (arXiv:2207.12598); 1 is without.
        condition: Further arguments of the UNet in each step.

    Raises:
        BadInput: the folder does not hold a pipeline with a UNet, has no text encoder for its prompts, or `diffusers` is not installed.
    """
    folder = Path(folder)
    library = import_diffusers()
    index = _read_index(folder)
    unet = _read_part(folder, index, "unet", library, use_safetensors=True).eval()
    scheduler = _read_part(folder, index, "scheduler", library)
    autoencoder = None
    if _is_named(index, "vae"):
        autoencoder = _read_part(folder, index, "vae", library, use_safetensors=True).eval()
    without: dict[str, Any] = {}
    if prompts:
        texts = _encode(folder, index, [*prompts, *[""] * len(prompts)])
        condition["encoder_hidden_states"] = texts[: len(prompts)]
        without = {**condition, "encoder_hidden_states": texts[len(prompts) :]}
    return Denoiser(unet, scheduler, condition, without, guidance, autoencoder)


@torch.no_grad()
def decode_images(
    denoiser: Denoiser, latents: Float[Tensor, "image channel row column"]
) -> Float[Tensor, "image 3 height width"]:
    """Images, from -1 to 1, of what a model has denoised; those of a pixel model are themselves."""
    if denoiser.autoencoder is None:
        return latents.clamp(-1, 1)
    autoencoder: Any = denoiser.autoencoder
    settings = autoencoder.config
    scaled = latents / settings.scaling_factor + (getattr(settings, "shift_factor", None) or 0.0)
    images: Tensor = autoencoder.decode(scaled).sample
    return images.clamp(-1, 1)


def _read_index(folder: Path) -> Mapping[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        missing = [name for name in ("unet", "scheduler") if not _is_named(index, name)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        missing = [f"{type(error).__name__}: {error}"]
    if missing:
        raise BadInput(
            f"{folder} must be a pipeline of diffusers with a unet and a scheduler in its model_index.json, got "
            f"{'no ' if len(missing[0]) < 10 else ''}{' and no '.join(missing)}: save one by `save_pretrained`."
        )
    return index


def _is_named(index: Mapping[str, Any], part: str) -> bool:
    """Whether the index has the library and the class of a part."""
    entry = index.get(part)
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)


def _read_part(folder: Path, index: Mapping[str, Any], part: str, library: Any, **options: Any) -> Any:
    name = index[part][1]
    kind: Any = getattr(library, name, None)
    if not hasattr(kind, "from_pretrained"):
        raise BadInput(
            f"the {part} of {folder} must be a class of {library.__name__}, got {name}: update {library.__name__}."
        )
    try:
        return kind.from_pretrained(folder / part, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(f"the {part} of {folder} cannot be read ({reason}): save the pipeline again.") from None


@torch.no_grad()
def _encode(folder: Path, index: Mapping[str, Any], texts: Sequence[str]) -> Float[Tensor, "text token width"]:
    import transformers

    missing = [part for part in ("tokenizer", "text_encoder") if not _is_named(index, part)]
    if missing or _is_named(index, "text_encoder_2"):
        raise BadInput(
            f"`prompts` must be given to a pipeline with one tokenizer and one text encoder, got {folder} with "
            f"{'no ' + missing[0] if missing else 'two'}: pass the UNet's own arguments, such as `encoder_hidden_states`."
        )
    tokenizer = _read_part(folder, index, "tokenizer", transformers)
    encoder = _read_part(folder, index, "text_encoder", transformers, use_safetensors=True).eval()
    longest = min(tokenizer.model_max_length, getattr(encoder.config, "max_position_embeddings", _LONGEST_PROMPT), 512)
    ids = tokenizer(
        list(texts), padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
    ).input_ids
    hidden: Tensor = encoder(ids)[0]
    return hidden
