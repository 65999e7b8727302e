"""Weight files of a model folder: which files are the weights, and are they complete?

A safetensors file begins with the length of its header and a JSON table of offsets, so a truncated file is detected without reading
it. Source: github.com/huggingface/safetensors, "Format".
"""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.errors import CheckpointError
from ontogeny.lineage.shard_metadata import SHARD_METADATA, read_shard_metadata, shard_folder, shard_names

SAFETENSORS_INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_FILE = "adapter_model.safetensors"
_ADAPTER_PICKLE = "adapter_model.bin"
_PICKLE_FILE = "pytorch_model.bin"
_PICKLE_INDEX = "pytorch_model.bin.index.json"
FSDP_PICKLE = "pytorch_model_fsdp.bin"
"""Whole weights that Accelerate gathers from FSDP (FULL_STATE_DICT)."""
_SMALL_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Config and tokenizer files; never code or pickles."""
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class WeightFile:
    """A weight file with its size in bytes and, from the Hub, its checksum."""

    name: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class CheckpointFiles:
    """The files from which a model is loaded."""

    weights: tuple[WeightFile, ...]
    small_files: tuple[str, ...]
    commit: str | None = None

    @property
    def bytes(self) -> int:
        """Total size of the weights."""
        return sum(file.size for file in self.weights)


def choose_weight_files(
    names: Collection[str], where: str, *, allow_pickle: bool = False, shards: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Choose the weight files of a folder as transformers does: by these names only, whatever else lies beside them.

    Of a LoRA folder without weights of its own they are the adapter's.

    Args:
        names: Names of the folder's files.
        where: The folder, for errors.
        shards: Shards named by an index; without them (on the Hub) the count in the file names is checked.

    Raises:
        CheckpointError: there are no weights, only pickles without `allow_pickle`, or shards are missing.
    """
    if "model.safetensors" in names:
        return ("model.safetensors",)
    if SAFETENSORS_INDEX in names:
        return _shards(names, shards, "model", "safetensors", where)
    if _PICKLE_FILE in names or _PICKLE_INDEX in names:
        _check_pickle_allowed(_PICKLE_FILE, where, allow_pickle)
        return (_PICKLE_FILE,) if _PICKLE_FILE in names else _shards(names, shards, "pytorch_model", "bin", where)
    if FSDP_PICKLE in names and "config.json" in names:
        _check_pickle_allowed(FSDP_PICKLE, where, allow_pickle)
        return (FSDP_PICKLE,)
    if sharded := shard_names(names):
        _check_pickle_allowed(f".distcp shards of FSDP: {len(sharded)}", where, allow_pickle)
        return (SHARD_METADATA, *sharded)
    if is_adapter(names) and _ADAPTER_FILE in names:
        return (_ADAPTER_FILE,)
    if is_adapter(names) and _ADAPTER_PICKLE in names:
        _check_pickle_allowed(_ADAPTER_PICKLE, where, allow_pickle)
        return (_ADAPTER_PICKLE,)
    raise CheckpointError(f"{where} has no weights ({_explain_missing(names)}).")


def _check_pickle_allowed(file: str, where: str, allow_pickle: bool) -> None:
    if not allow_pickle:
        raise CheckpointError(
            f"{where} holds its weights only as a pickle ({file}), which can run code when loaded: if you trust it, "
            "set `allow_pickle`."
        )


def has_weights(names: Collection[str]) -> bool:
    """Whether the names include weights that transformers would load, complete or not."""
    known = ("model.safetensors", SAFETENSORS_INDEX, _PICKLE_FILE, _PICKLE_INDEX, FSDP_PICKLE)
    return any(name in names for name in known) or bool(shard_names(names))


def is_adapter(names: Collection[str]) -> bool:
    """Whether the names are those of a PEFT adapter without a whole model beside it."""
    return ADAPTER_CONFIG in names and not has_weights(names)


def unread_weight_files(names: Collection[str], weights: Collection[str]) -> tuple[str, ...]:
    """Files of tensors beside the weights, which are never read: a value head, the optimiser's state, another precision."""
    return tuple(sorted(name for name in names if name.endswith(".safetensors") and name not in weights))


_INNER_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_OUTER_WRAPPERS = ("module.", "base_model.model.")


def unwrapped_names(names: Iterable[str]) -> dict[str, str]:
    """The name of each stored tensor without the wrappers of torch.compile, DDP, FSDP or PEFT."""
    inner = {name: _INNER_WRAPPERS.sub("", name).removeprefix(".") for name in names}
    while wrapper := next((w for w in _OUTER_WRAPPERS if inner and all(n.startswith(w) for n in inner.values())), None):
        inner = {stored: name.removeprefix(wrapper) for stored, name in inner.items()}
    return inner


def config_and_tokenizer_files(names: Collection[str]) -> tuple[str, ...]:
    """Config and tokenizer files among the names."""
    return tuple(sorted(name for name in names if name.endswith(_SMALL_SUFFIXES)))


def _shards(names: Collection[str], named: tuple[str, ...], stem: str, suffix: str, where: str) -> tuple[str, ...]:
    if named:
        missing = [shard for shard in named if shard not in names]
        if missing:
            raise CheckpointError(
                f"{where} lacks {len(missing)} of its {len(named)} weight shards, first {missing[0]}: fetch or save it again."
            )
        return named
    pattern = re.compile(rf"{stem}-\d+-of-(\d+)\.{suffix}")
    present = {name: int(match[1]) for name in sorted(names) if (match := pattern.fullmatch(name))}
    total = max(present.values(), default=0)
    if not present or len(present) < total:
        raise CheckpointError(
            f"{where} has {len(present)} of its {total or 'announced'} weight shards: fetch or save it again."
        )
    return tuple(present)


_CONVERSIONS: tuple[tuple[str, str, str], ...] = (
    (
        r".*\.distcp|\.metadata|pytorch_model_fsdp_\d+.*|.*_fsdp_\d+",
        "FSDP shards without their .metadata",
        "`accelerate merge-weights`, from the whole folder",
    ),
    (r"zero_to_fp32\.py|global_step\d+|zero_pp_rank_.*", "DeepSpeed shards", "its zero_to_fp32.py"),
    (
        r"mp_rank_\d+.*|iter_\d{7}|latest_checkpointed_iteration\.txt|model_optim_rng\.pt|distrib_optim\.pt",
        "Megatron shards",
        "Megatron's tools/checkpoint/convert.py",
    ),
    (
        r".*\.gguf",
        "GGUF weights, which are quantised",
        "`from_pretrained(folder, gguf_file=…)` and `save_pretrained()`",
    ),
    (
        r".*\.msgpack",
        "Flax weights",
        "`from_pretrained(folder, from_flax=True)` and `save_pretrained()` of transformers 4",
    ),
    (
        r"tf_model.*\.h5",
        "TensorFlow weights",
        "`from_pretrained(folder, from_tf=True)` and `save_pretrained()` of transformers 4",
    ),
    (r".*\.nemo", "NeMo weights", "NeMo's `export_ckpt` to `hf`"),
    (r"consolidated\..*\.pth|params\.json", "weights in Meta's format", "transformers' convert_llama_weights_to_hf.py"),
    (r".*\.orbax.*|_METADATA|_CHECKPOINT_METADATA", "Orbax weights", "the converter of its training code"),
)
"""Names of files and folders of other formats, the format, and what converts it."""


def other_format(names: Collection[str]) -> bool:
    """Whether the names are those of weights in a format that must be converted first."""
    return any(re.fullmatch(pattern, name) for pattern, _, _ in _CONVERSIONS for name in names)


def _explain_missing(names: Collection[str]) -> str:
    """Why no weights were found: another format, another name, or nothing."""
    for pattern, content, converter in _CONVERSIONS:
        if any(re.fullmatch(pattern, name) for name in names):
            return f"it holds {content}: convert them with {converter}"
    if ADAPTER_CONFIG in names or _ADAPTER_FILE in names:
        absent = ADAPTER_CONFIG if _ADAPTER_FILE in names else _ADAPTER_FILE
        return (
            f"it is a LoRA adapter without {absent}: save it again, or merge it into its base model with PEFT's "
            "merge_and_unload and save that"
        )
    others = [name for name in sorted(names) if name.endswith(".safetensors")]
    if len(others) == 1:
        return f"{others[0]} is not a name that transformers loads: rename it to model.safetensors if it is the whole model"
    if others:
        return (
            f"{len(others)} safetensors files, first {others[0]}, but neither model.safetensors nor {SAFETENSORS_INDEX}"
        )
    return f"neither model.safetensors nor {SAFETENSORS_INDEX}: save the model with save_pretrained()"


def check_model_folder(folder: Path, *, allow_pickle: bool = False) -> CheckpointFiles:
    """Check a model folder without reading its weights.

    Raises:
        CheckpointError: a file is missing, truncated or unreadable.
    """
    names = file_names(folder)
    if shards := _only_shards(folder, names):
        return _check_shards(folder, shards, names, allow_pickle)
    chosen = choose_weight_files(names, str(folder), allow_pickle=allow_pickle, shards=_indexed_shards(folder, names))
    read_json(folder / ADAPTER_CONFIG if is_adapter(names) else config_folder(folder) / "config.json")
    for name in chosen:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is not a regular file: fetch or save it again.")
        if name.endswith(".safetensors"):
            read_safetensors_header(folder / name)
        elif not (folder / name).stat().st_size:
            raise CheckpointError(f"{folder / name} is empty: fetch or save it again.")
    return CheckpointFiles(
        tuple(WeightFile(name, (folder / name).stat().st_size) for name in chosen), config_and_tokenizer_files(names)
    )


def file_names(folder: Path) -> list[str]:
    """Names in a folder, links to nowhere left out."""
    return [path.name for path in folder.iterdir() if path.exists()]


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model or a LoRA adapter, complete or not."""
    names = [path.name for path in folder.iterdir()]
    if is_adapter(names):
        return True
    return (has_weights(names) or sharded_weights(folder) is not None) and has_config(folder)


def has_config(folder: Path) -> bool:
    """Whether a folder has a config of a model or of an adapter, in itself or, of shards, above."""
    return (folder / ADAPTER_CONFIG).is_file() or (config_folder(folder) / "config.json").is_file()


def sharded_weights(folder: Path) -> Path | None:
    """The folder with the shards from which a model folder is read; None if it has weights that need no `.metadata`.

    Raises:
        CheckpointError: it holds the shards of several models.
    """
    return _only_shards(folder, file_names(folder)) if folder.is_dir() else None


def _only_shards(folder: Path, names: Collection[str]) -> Path | None:
    others = [name for name in names if name != SHARD_METADATA]
    return None if has_weights(others) or is_adapter(others) else shard_folder(folder)


def config_folder(folder: Path) -> Path:
    """The folder whose config.json a model is built from: its own, or, of weights that a trainer saves alone, one of the two above."""
    if (folder / "config.json").is_file() or not folder.is_dir():
        return folder
    names = file_names(folder)
    if is_adapter(names) or not (has_weights(names) or sharded_weights(folder) is not None):
        return folder
    return next((above for above in folder.absolute().parents[:2] if (above / "config.json").is_file()), folder)


def _check_shards(folder: Path, shards: Path, names: Collection[str], allow_pickle: bool) -> CheckpointFiles:
    where, inside = str(folder), "" if shards == folder else f"{shards.name}/"
    chosen = choose_weight_files(file_names(shards), where, allow_pickle=allow_pickle)
    if not (config_folder(folder) / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds shards without the config.json of their model: copy it there, or into the folder above."
        )
    read_json(config_folder(folder) / "config.json")
    table = read_shard_metadata(shards)
    weights = [WeightFile(f"{inside}{name}", table.bytes_of[name]) for name in chosen if table.bytes_of.get(name)]
    return CheckpointFiles(tuple(weights), config_and_tokenizer_files(names))


def _indexed_shards(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """The shards named by an index on disk."""
    for index in (SAFETENSORS_INDEX, _PICKLE_INDEX):
        if index in names:
            weight_map = read_json(folder / index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{folder / index} names no shards: fetch or save it again.")
            return tuple(sorted(set(map(str, weight_map.values()))))
    return ()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: the file is missing or holds no JSON object.
    """
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is not a regular file: fetch or save it again.")
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}: save the model with save_pretrained().") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}): fetch or save it again.") from None
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object; `where` names the file in errors.

    Raises:
        CheckpointError: the content is not a JSON object.
    """
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} cannot be read ({error}): fetch or save it again.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} must hold a JSON object, got a {type(value).__name__}: fetch or save it again.")
    return value


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """The tensor table of a safetensors file, checked against the file's size.

    Raises:
        CheckpointError: the file is truncated, a git-lfs pointer, or not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if first == b"version ":
            raise CheckpointError(
                f"{path} is a git-lfs pointer, not the weights: run `git lfs pull` in its repository."
            )
        if len(first) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(
                f"{path} is cut off or not a safetensors file ({size} bytes): fetch or save it again."
            )
        try:
            table = json.loads(file.read(length))
            end = 8 + length + max((_tensor_end(t) for n, t in table.items() if n != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CheckpointError(f"{path} has an unreadable header: fetch or save it again.") from None
    if end != size:
        state = "cut off" if size < end else "too long"
        raise CheckpointError(f"{path} is {state} ({size} bytes, by its header {end}): fetch or save it again.")
    return dict(table)


def _tensor_end(tensor: dict[str, Any]) -> int:
    """Offset of a tensor's end after the header.

    Raises:
        ValueError, KeyError, TypeError: the entry is invalid.
    """
    first, last = tensor["data_offsets"]
    counts = [first, last, *tensor["shape"]]
    if not all(type(n) is int and n >= 0 for n in counts) or first > last or type(tensor["dtype"]) is not str:
        raise ValueError
    return int(last)
