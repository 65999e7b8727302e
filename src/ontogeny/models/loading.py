"""A Hugging Face network and its tokenizer from a folder: nothing is run from it, and what is missing or broken is one line.

Weights are safetensors unless pickles are asked for. An unknown family is refused before its weights are read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ontogeny import architectures
from ontogeny.errors import BadInput, CheckpointError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "tokenizer_config.json",
)


def silence_transformers() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def read_config(folder: Path) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:  # each config class checks its fields in its own way
        raise CheckpointError(
            f"{folder} has no usable config.json ({first_error_line(error)}). Is it a Hugging Face checkpoint?"
        ) from None


def random_network(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A network of this shape with freshly initialised weights.

    Raises:
        BadInput: transformers has no language model of this type.
        CheckpointFault: the numbers in the config are none that a network can have.
    """
    try:
        network: PreTrainedModel = _auto_class(config).from_config(config, dtype=dtype)
    except Exception as error:  # whatever a division by no heads or a width of -8 comes to
        if "Unrecognized configuration class" in str(error):
            raise architectures.unsupported_model(
                config.model_type, "transformers has no language model of this type"
            ) from None
        raise CheckpointError(
            f"no network can be built as the config.json of {config.name_or_path or config.model_type} says "
            f"({first_error_line(error)}). Fetch or save it again."
        ) from None
    return network


def _auto_class(config: PretrainedConfig) -> Any:
    """Models that predict the next word, those that fill in a masked one, or those that look at images."""
    table = architectures.find_architecture(config.model_type)
    if table is not None and table.images:
        return AutoModelForImageClassification
    return AutoModelForCausalLM if table is None or table.causal else AutoModelForMaskedLM


def check_language_model(folder: Path) -> None:
    """Refuse a model of images before its weights are read."""
    _check_texts(read_config(folder))


def check_loadable(config: PretrainedConfig) -> None:
    """Refuse, before its weights are fetched or read, a model of images, or one that neither a table nor its structure describes.

    Raises:
        BadInput: it is one.
    """
    _check_described(config)
    _check_texts(config)


def _check_texts(config: PretrainedConfig) -> None:
    table = architectures.find_architecture(config.model_type)
    if table is not None and table.images:
        raise no_text_error(config.model_type)


def _check_described(config: PretrainedConfig) -> None:
    if architectures.find_architecture(config.model_type) is None:
        with torch.device("meta"):  # without weights: an unknown family should cost nothing
            architectures.architecture_of(random_network(config))


def parse_config(told: Mapping[str, Any]) -> PretrainedConfig | None:
    """What the content of a config.json describes; None where transformers can make nothing of it."""
    try:
        return AutoConfig.for_model(**told)
    except Exception:  # each config class checks its fields in its own way; whoever opens the folder says what is wrong
        return None


def no_text_error(kind: str) -> BadInput:
    """The error where texts meet a model of images."""
    return BadInput(
        f"{kind} reads images and has no tokenizer, so texts cannot be traced through it. From Python, "
        "ontogeny.models.vision.capture_images reads prepared pixels at the same sites."
    )


def load_network(folder: Path, dtype: torch.dtype, allow_pickle: bool) -> PreTrainedModel:
    """The network of a checkpoint folder with its weights.

    Raises:
        CheckpointFault: weights that are missing, of another shape, or unreadable.
        BadInput: a family that no table describes and whose structure says too little.
    """
    config = read_config(folder)
    _check_described(config)
    try:
        network, info = _auto_class(config).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            # None lets transformers fall back to .bin files, which it opens with weights_only=True.
            use_safetensors=None if allow_pickle else True,
            output_loading_info=True,
            # Else transformers says in a table on the terminal which tensors they are, and not in its exception.
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # safetensors and transformers raise half a dozen types for a broken file
        raise CheckpointError(
            f"the weights of {folder} cannot be read ({first_error_line(error)}). Fetch or save them again."
        ) from None
    _check_complete(network, info, folder)
    return network


def _check_complete(network: PreTrainedModel, info: dict[str, Any], folder: Path) -> None:
    missing = sorted(info["missing_keys"])
    if not architectures.architecture_of(network).causal:
        # Nobody asks an encoder for words: one that was saved without them is whole.
        missing = [name for name in missing if name.startswith(f"{network.base_model_prefix}.")]
    mismatched = sorted(str(key[0]) for key in info["mismatched_keys"])
    if missing or mismatched:
        what = f"lack {missing[0]}" if missing else f"have another shape for {mismatched[0]}"
        count = len(missing) + len(mismatched)
        raise CheckpointError(
            f"the weights of {folder} {what} ({count} tensors in all) although its config asks for it. Fetch them again."
        )


def check_finite_weights(network: PreTrainedModel, folder: Path) -> None:
    """Refuse weights that hold NaN or infinity."""
    for name, parameter in network.named_parameters():
        # The sum of a tensor is finite exactly when no entry is NaN or infinite (or the sum overflows: then look closer).
        if not torch.isfinite(parameter.sum(dtype=torch.float32)) and not torch.isfinite(parameter).all():
            raise CheckpointError(
                f"the weights of {folder} are not finite ({name} holds NaN or Inf). The run diverged, or the file is damaged."
            )


def load_tokenizer(folder: Path, network: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder (or repository), if its vocabulary is the network's."""
    if folder.is_dir() and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        # Transformers would make an empty one from config.json.
        raise BadInput(
            f"no usable tokenizer in {folder} (no tokenizer.json). Name one with --tokenizer FOLDER_OR_REPO."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise BadInput(
            f"no usable tokenizer in {folder} ({first_error_line(error)}). Name one with --tokenizer FOLDER_OR_REPO."
        ) from None
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise BadInput(
            f"the tokenizer of {folder} has {len(tokenizer)} tokens but the model embeds {rows}: they do not belong together. "
            "Name the right one with --tokenizer."
        )
    return tokenizer


def nearest_tokenizer(folder: Path) -> Path | None:
    """The checkpoint's own tokenizer, else that of the folder above: a trainer saves it once, on top."""
    # A linked checkpoint has two folders above it.
    places = (folder, folder.absolute().parent, folder.resolve().parent)
    has = [f for f in places if any((f / n).is_file() for n in ("tokenizer.json", "tokenizer_config.json"))]
    return has[0] if has else None


def first_error_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(" .:")[:160]
