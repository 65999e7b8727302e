"""Open the config, weights and tokenizer of a checkpoint folder without running code from it.

Weights must be safetensors unless pickles are allowed. Unknown families are refused before their weights are read.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ontogeny import architectures
from ontogeny.errors import BadInput, CheckpointError, unknown_name
from ontogeny.lineage import Checkpoint, fetch_checkpoint, weight_files
from ontogeny.lineage.fetch import adapter_base, checkpoint_config
from ontogeny.models.adapters import merge_adapter
from ontogeny.models.multi_gpu import resolve_device
from ontogeny.models.shard_reader import read_shards
from ontogeny.models.stored_tensors import integer_tensors, stored_dtypes, unused_tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "tokenizer_config.json",
)
TOKENIZER_SETTINGS = ("special_tokens_map.json", "chat_template.jinja")
"""Files that change how a text is tokenised, and are not a tokenizer by themselves."""
_MOST = {"layer": 2_000, "expert": 10_000, "label": 200_000}
"""Largest plausible count, by a word in the name of a setting."""
_MOST_ADDED_TOKENS = 20_000
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
"""Colours of a terminal, which torch writes into some errors."""
_OWN_CODE = "trust_remote_code=True"
"""In the error of transformers about a checkpoint with its own code."""


@dataclass(frozen=True)
class ModelOptions:
    """How the model of a checkpoint is loaded.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` for the fastest of this machine (cuda, else mps, else cpu), `all` for its GPUs
            together.
        dtype: `float32`, `bfloat16` or `float16`. A trace takes it from its `TraceSettings` instead.
        tokenizer: Folder or repository; by default the checkpoint's own tokenizer, else that of the folder above.
        allow_pickle: Whether to read `pytorch_model.bin` and the shards of FSDP as well (weights only).
    """

    device: str = "cpu"
    dtype: str = "float32"
    tokenizer: str | Path | None = None
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", resolve_device(self.device))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch spells it."""
        return as_torch_dtype(self.dtype)

    def tokenizer_for(self, folder: Path) -> Path | None:
        """The tokenizer for a checkpoint folder; None if there is none nearby."""
        return Path(self.tokenizer) if self.tokenizer else nearest_tokenizer(folder)


def as_torch_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A data type as torch spells it.

    Raises:
        BadInput: the name is unknown.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise unknown_name("dtype", dtype, ("float32", "bfloat16", "float16"))
    return named


def silence_transformers() -> None:
    """Switch off the warnings and progress bars of transformers."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read_config(folder: Path) -> "PretrainedConfig":
    """The config of a checkpoint folder; of an adapter that of its base model.

    Raises:
        CheckpointError: config.json is missing or invalid.
    """
    from transformers import AutoConfig

    base = _adapter_base(folder)
    if base is not None:
        config = None if base.is_local else parse_config(checkpoint_config(base))
        return config if config is not None else read_config(fetch_checkpoint(base, allow_pickle=True))
    place = weight_files.config_folder(folder)
    if (place / "config.json").is_file():
        _check_counts(weight_files.read_json(place / "config.json"), f"{place}/config.json")
    try:
        return _without_own_code(AutoConfig.from_pretrained(place, trust_remote_code=False))
    except Exception as error:  # each config class raises its own errors
        if _OWN_CODE in str(error):
            raise own_code_error(folder) from None
        raise CheckpointError(
            f"{folder} has no usable config.json ({first_error_line(error)}): give a Hugging Face checkpoint."
        ) from None


def _check_counts(settings: Mapping[str, Any], where: str) -> None:
    """Raise `CheckpointError` for a number of layers, experts or labels that no model has, before transformers builds a list of them."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _check_counts(value, where)
        count = len(value) if isinstance(value, list | dict) else value
        most = next((most for word, most in _MOST.items() if word in name), None)
        if most is not None and type(count) is int and count > most:
            raise CheckpointError(
                f"{name} in {where} must be at most {most:,}, got {count:,}: the file is damaged, so fetch or save it again."
            )


def own_code_error(folder: Path) -> CheckpointError:
    """The error for a config or tokenizer that transformers reads by code of the checkpoint only."""
    return CheckpointError(
        f"{folder} needs Python code of its own (auto_map), which is never run: give a checkpoint of a type that transformers knows."
    )


def _without_own_code(config: "PretrainedConfig") -> "PretrainedConfig":
    """The config of a type that transformers knows, without the names of code that a checkpoint brings for it."""
    if hasattr(config, "auto_map"):
        del config.auto_map
    return config


def random_network(config: "PretrainedConfig", dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """A network with freshly initialised weights.

    Raises:
        BadInput: transformers has no language model of this type.
        CheckpointError: the config has invalid sizes.
    """
    try:
        network: PreTrainedModel = _auto_class(config).from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # a division by zero heads, a negative width, …
        if "Unrecognized configuration class" in str(error):
            raise architectures.unsupported_model(
                config.model_type, "transformers has no language model of this type"
            ) from None
        raise CheckpointError(
            f"no network can be built from the config.json of {config.name_or_path or config.model_type} "
            f"({first_error_line(error)}): fetch or save it again."
        ) from None
    return network


def _auto_class(config: "PretrainedConfig") -> Any:
    """The transformers class: causal, masked or image model."""
    from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM

    table = architectures.find_architecture(config.model_type)
    if table is not None and table.images:
        return AutoModelForImageClassification
    return AutoModelForCausalLM if table is None or table.causal else AutoModelForMaskedLM


def check_language_model(folder: Path) -> None:
    """Raise `BadInput` for an image model, before its weights are read."""
    _check_texts(read_config(folder))


def check_loadable(config: "PretrainedConfig") -> None:
    """Check a model before its weights are fetched or read.

    Raises:
        BadInput: it is an image model, or its architecture is unknown.
    """
    _check_described(config)
    _check_texts(config)


def _check_texts(config: "PretrainedConfig") -> None:
    table = architectures.find_architecture(config.model_type)
    if table is not None and table.images:
        raise no_text_error(config.model_type)


def _check_described(config: "PretrainedConfig") -> None:
    if architectures.find_architecture(config.model_type) is None:
        with torch.device("meta"):  # no memory for weights: checking an unknown family is free
            architectures.architecture_of(random_network(config))


def parse_config(settings: Mapping[str, Any]) -> "PretrainedConfig | None":
    """The config with the content of a config.json; None if transformers rejects it.

    Raises:
        CheckpointError: it has more layers, experts or labels than any model.
    """
    from transformers import AutoConfig

    _check_counts(settings, "config.json")
    try:
        # A copy, since config classes write into nested settings, such as those of rotary embeddings.
        return _without_own_code(AutoConfig.for_model(**copy.deepcopy(dict(settings))))
    except Exception:  # each config class raises its own errors; loading will raise the proper one
        return None


def empty_network(settings: Mapping[str, Any]) -> "PreTrainedModel | None":
    """The network that a config.json describes, without memory for its weights; None if transformers has none."""
    config = parse_config(settings)
    try:
        with torch.device("meta"):
            return random_network(config) if config is not None else None
    except BadInput:
        return None


def no_text_error(kind: str) -> BadInput:
    """The error for texts given to an image model."""
    return BadInput(
        f"{kind} reads images and has no tokenizer, so texts cannot be traced through it: from Python, read prepared pixels "
        "at the same sites with ontogeny.models.vision.capture_images."
    )


def load_network(folder: Path, dtype: torch.dtype, allow_pickle: bool) -> "PreTrainedModel":
    """The network of a checkpoint folder with its weights.

    Raises:
        CheckpointError: weights are missing, have the wrong shape, or cannot be read.
        BadInput: the architecture is unknown.
    """
    base = _adapter_base(folder)
    if base is not None:
        network = load_network(fetch_checkpoint(base, allow_pickle=allow_pickle), dtype, allow_pickle)
        merge_adapter(network, folder, allow_pickle=allow_pickle)
        return network
    config = read_config(folder)
    _check_described(config)
    unnamed = _other_names(folder, allow_pickle)
    dtypes = stored_dtypes(folder) if folder.is_dir() else {}
    quantised = _check_quantised(config, folder)
    try:
        wrapped = any(stored != name for stored, name in weight_files.unwrapped_names(dtypes).items())
        if wrapped or unnamed:
            network, info = _load_unwrapped(config, folder, dtype, allow_pickle)
        else:
            network, info = _auto_class(config).from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                trust_remote_code=False,
                # None: transformers falls back to .bin files, which it opens with weights_only=True.
                use_safetensors=None if allow_pickle else True,
                output_loading_info=True,
                # Otherwise transformers prints mismatches as a table instead of naming them in its exception.
                ignore_mismatched_sizes=True,
            )
    except CheckpointError:
        raise
    except Exception as error:  # broken files raise many types
        if kind := _quantisation(config):
            raise CheckpointError(
                f"the weights of {folder} are quantised ({kind}) and cannot be read ({first_error_line(error)}): install or use what is "
                "named there, or save them in BF16."
            ) from None
        raise CheckpointError(
            f"the weights of {folder} cannot be read ({first_error_line(error)}): fetch or save them again."
        ) from None
    _check_complete(network, info, folder)
    if quantised:
        network = network.dequantize().to(dtype)
    as_stored = not quantised and getattr(network, "hf_quantizer", None) is None
    if as_stored and (scaled := integer_tensors(network, dtypes)):
        raise CheckpointError(
            f"the weights of {folder} hold {scaled[0]} ({len(scaled)} tensors in all) as integers or scaled floats "
            f"({dtypes.get(scaled[0], 'I8')}), whose scales its config does not describe: save them as F32 or BF16."
        )
    return network


def _adapter_base(folder: Path) -> Checkpoint | None:
    return adapter_base(Checkpoint(str(folder))) if folder.is_dir() else None


_QUANTISERS = {
    "bitsandbytes": "bitsandbytes",
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "hqq": "hqq",
    "compressed-tensors": "compressed_tensors",
    "torchao": "torchao",
    "quanto": "optimum.quanto",
}
"""Package that reads the weights of each kind of quantisation."""


def _check_quantised(config: "PretrainedConfig", folder: Path) -> bool:
    """Whether the weights are quantised; they are read in full precision, if the package of their kind is installed.

    Raises:
        CheckpointError: it is not.
    """
    kind = _quantisation(config)
    if kind is None:
        return False
    package = _QUANTISERS.get(kind)
    if package is None:  # of a kind that transformers reads by itself
        return False
    if find_spec(package.split(".")[0]) is None:
        raise CheckpointError(
            f"the weights of {folder} are quantised ({kind}), which needs the package {package}: install it, or save them in BF16."
        )
    return True


def _quantisation(config: "PretrainedConfig") -> str | None:
    """Kind of quantisation of the weights, by the config; None without one."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    values = settings if isinstance(settings, Mapping) else settings.to_dict()
    return str(getattr(values.get("quant_method"), "value", values.get("quant_method") or "bitsandbytes"))


def _other_names(folder: Path, allow_pickle: bool) -> bool:
    """Whether the weights are in files that transformers does not look for, or without a config.json beside them."""
    if not folder.is_dir():
        return False
    files = weight_files.check_model_folder(folder, allow_pickle=allow_pickle).weights
    other = any(file.name == weight_files.FSDP_PICKLE or file.name.endswith(".distcp") for file in files)
    return other or (
        weight_files.config_folder(folder) != folder and not weight_files.is_adapter(weight_files.file_names(folder))
    )


def _load_unwrapped(
    config: "PretrainedConfig", folder: Path, dtype: torch.dtype, allow_pickle: bool
) -> "tuple[PreTrainedModel, dict[str, Any]]":
    """Load weights that were saved with the names of a wrapper such as torch.compile before them, or by FSDP."""
    from safetensors.torch import load_file

    with torch.device("meta"):
        empty = random_network(config)
    tensors: dict[str, torch.Tensor] = {}
    if (shards := weight_files.sharded_weights(folder)) is not None:
        # `.metadata` and the shards are pickles, reached with `allow_pickle` only and restricted to tensors.
        weight_files.check_model_folder(folder, allow_pickle=allow_pickle)
        tensors = read_shards(shards, empty)
        return _from_tensors(empty, config, tensors, dtype)
    for file in weight_files.check_model_folder(folder, allow_pickle=allow_pickle).weights:
        path = folder / file.name
        # A pickle is reached with `allow_pickle` only, and restricted to tensors.
        if path.suffix == ".safetensors":
            tensors |= load_file(path)
        else:
            tensors |= torch.load(path, weights_only=True, map_location="cpu")  # noqa: TID251
    names = weight_files.unwrapped_names(tensors)
    return _from_tensors(empty, config, {names[stored]: value for stored, value in tensors.items()}, dtype)


def _from_tensors(
    empty: "PreTrainedModel", config: "PretrainedConfig", tensors: dict[str, torch.Tensor], dtype: torch.dtype
) -> "tuple[PreTrainedModel, dict[str, Any]]":
    """A network of the class of `empty` with these tensors, and what transformers says of them."""
    network, info = type(empty).from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    return network, info


def _check_complete(network: "PreTrainedModel", info: dict[str, Any], folder: Path) -> None:
    missing = sorted(info["missing_keys"])
    if not architectures.architecture_of(network).causal:
        # Encoders are used without their output head, which may be missing.
        missing = [name for name in missing if name.startswith(f"{network.base_model_prefix}.")]
    mismatched = sorted(str(key[0]) for key in info["mismatched_keys"])
    unused = unused_tensors(network, info["unexpected_keys"]).inside
    adapter = any(".lora_" in name for name in unused)
    if missing or mismatched:
        problem = f"lack {missing[0]}" if missing else f"have another shape for {mismatched[0]}"
        count = len(missing) + len(mismatched)
        advice = "merge the LoRA adapter that they hold" if adapter else "fetch them again"
        if info["unexpected_keys"] and 2 * count >= len(network.state_dict()) and not adapter:
            example = min(info["unexpected_keys"])
            advice = f"they hold other names, such as {example}, so save the model with save_pretrained()"
        raise CheckpointError(
            f"the weights of {folder} {problem} ({count} tensors in all), which its config requires: {advice}."
        )
    if unused:
        advice = (
            "merge the LoRA adapter that they hold" if adapter else "correct its config.json, or save the model again"
        )
        raise CheckpointError(
            f"the weights of {folder} hold {unused[0]} ({len(unused)} tensors in all), for which its config has no place: {advice}."
        )


def check_finite_weights(network: "PreTrainedModel", folder: Path) -> None:
    """Raise `CheckpointError` if a weight is NaN or infinite."""
    for name, parameter in network.named_parameters():
        # The sum is finite if all entries are; it may also overflow, so a failure is checked entry by entry.
        if not torch.isfinite(parameter.sum(dtype=torch.float32)) and not torch.isfinite(parameter).all():
            raise CheckpointError(
                f"the weights of {folder} are not finite ({name} holds NaN or Inf): the run diverged or the file is damaged, so "
                "leave this checkpoint out, or fetch it again."
            )


def load_tokenizer(folder: Path, network: "PreTrainedModel") -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or repository.

    Raises:
        BadInput: it is missing or broken, or its vocabulary is larger than the network's embedding. Tokens that were added to it, such as
            a padding token, may lie beyond the embedding as long as no text uses them.
    """
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # Transformers would build an empty one from config.json.
        raise BadInput(
            f"no usable tokenizer in {folder} (no tokenizer.json): set `tokenizer` to a folder or repository."
        )
    tokenizer = open_tokenizer(folder)
    rows = network.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > rows:
        raise BadInput(
            f"the tokenizer of {folder} has {len(tokenizer)} tokens but the model embeds {rows}, so they do not belong "
            "together: set `tokenizer` to the right one."
        )
    _refuse_ids_without_row(network, tokenizer, rows)
    return tokenizer


def _refuse_ids_without_row(network: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: int) -> None:
    """Raise `BadInput` when a text holds an added token that the network does not embed."""
    embedding = network.get_input_embeddings()
    if (hook := getattr(embedding, "_ontogeny_row_check", None)) is not None:
        hook.remove()
        embedding._ontogeny_row_check = None
    if len(tokenizer) <= rows:
        return

    def check(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and arguments[0].numel() and int(arguments[0].max()) >= rows:
            token = tokenizer.convert_ids_to_tokens(int(arguments[0].max()))
            raise BadInput(
                f"a text holds the token {token!r}, which the tokenizer has and the model does not embed ({rows} rows): remove it "
                "from the text, or set `tokenizer` to the right one."
            )

    embedding._ontogeny_row_check = embedding.register_forward_pre_hook(check)


def open_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder or repository, without running its code.

    Raises:
        BadInput: it is broken, or needs its own code.
    """
    from transformers import AutoTokenizer

    _check_added_tokens(folder)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        if _OWN_CODE in str(error):
            raise own_code_error(folder) from None
        raise BadInput(
            f"no usable tokenizer in {folder} ({first_error_line(error)}): set `tokenizer` to a folder or repository."
        ) from None
    return tokenizer


def _check_added_tokens(folder: Path) -> None:
    """Raise `BadInput` for more added tokens than any tokenizer has: adding them takes the square of their number in time."""
    lists = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder")
    for name in ("tokenizer_config.json", *TOKENIZER_SETTINGS, "added_tokens.json", "tokenizer.json"):
        path = folder / name
        if not path.is_file() or path.suffix != ".json":
            continue
        if name == "tokenizer.json":  # may be large, and is not parsed twice
            counts = [path.read_bytes().count(b'"special"')]
        else:
            try:
                settings = weight_files.read_json(path)
            except CheckpointError:  # transformers has the proper error
                continue
            counts = [len(value) for key in lists if isinstance(value := settings.get(key), list | dict)]
            counts += [len(settings)] if name == "added_tokens.json" else []
        if (most := max(counts, default=0)) > _MOST_ADDED_TOKENS:
            raise BadInput(
                f"{path} must add at most {_MOST_ADDED_TOKENS:,} tokens, got {most:,}: the file is damaged, so fetch or save it again."
            )


def nearest_tokenizer(folder: Path) -> Path | None:
    """Folder of the checkpoint's tokenizer: its own, else its parent folder, where trainers save it once, else an adapter's base model."""
    found = saved_tokenizer(folder)
    if found is not None or (base := _adapter_base(folder)) is None:
        return found
    return nearest_tokenizer(Path(base.source)) if base.is_local else fetch_checkpoint(base)


def saved_tokenizer(folder: Path) -> Path | None:
    """The folder itself or its parent folder, if it holds a tokenizer; of a folder inside a revision of the Hub also its top."""
    # A linked checkpoint has two parent folders.
    folders = [folder, folder.absolute().parent, folder.resolve().parent]
    folders += [above for above in folder.absolute().parents if above.parent.name == "snapshots"]
    return next((f for f in folders if any((f / name).is_file() for name in TOKENIZER_FILES)), None)


def has_chat_template(folder: Path) -> bool | None:
    """Whether the tokenizer with which a checkpoint is read has a chat template, from its small files; None if they are elsewhere."""
    place = saved_tokenizer(folder)
    if place is None:
        base = _adapter_base(folder)
        return has_chat_template(Path(base.source)) if base is not None and base.is_local else None
    if (place / "chat_template.jinja").is_file() or (place / "additional_chat_templates").is_dir():
        return True
    settings = place / "tokenizer_config.json"
    return settings.is_file() and bool(weight_files.read_json(settings).get("chat_template"))


def first_error_line(error: Exception) -> str:
    """First line of an error message, at most 160 characters."""
    lines = _COLOUR.sub("", str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(" .:")[:160]
