"""What a model folder holds: which files are the weights, whether they are whole, and what tells them apart.

A safetensors file starts with the length of its header and a JSON table of offsets, so that a cut file is found without
reading it. Source: github.com/huggingface/safetensors, "Format".
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.errors import CheckpointError

SAFETENSORS_INDEX = "model.safetensors.index.json"
_PICKLE_FILE = "pytorch_model.bin"
_PICKLE_INDEX = "pytorch_model.bin.index.json"
_SMALL_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Configuration and tokenizer; never code, never a pickle."""
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class WeightFile:
    name: str
    size: int
    """In bytes."""
    sha256: str | None = None
    """Of the content, where the Hub tells it."""


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint that a model is loaded from."""

    weights: tuple[WeightFile, ...]
    small_files: tuple[str, ...]
    commit: str | None = None

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return sum(file.size for file in self.weights)


def choose_weight_files(
    names: Collection[str], where: str, *, allow_pickle: bool = False, shards: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The weight files among the names of a folder's files, by the precedence of transformers.

    `shards` are the ones that an index names; without them (on the Hub) the count in the names of the shards is held to.

    Raises:
        CheckpointFault: no weights, only pickles without leave, or missing shards.
    """
    if "model.safetensors" in names:
        return ("model.safetensors",)
    if SAFETENSORS_INDEX in names:
        return _shards(names, shards, "model", "safetensors", where)
    single = sorted(name for name in names if name.endswith(".safetensors") and not name.startswith("adapter"))
    if len(single) == 1:
        return (single[0],)
    if _PICKLE_FILE in names or _PICKLE_INDEX in names:
        if not allow_pickle:
            raise CheckpointError(
                f"{where} holds its weights only as a pickle ({_PICKLE_FILE}), which can run code when it is loaded. "
                "If you trust it, pass --allow-pickle."
            )
        return (_PICKLE_FILE,) if _PICKLE_FILE in names else _shards(names, shards, "pytorch_model", "bin", where)
    raise CheckpointError(f"{where} has no weights: {_why_not(names)}")


def has_weights(names: Collection[str]) -> bool:
    """Whether weights that transformers would load are among the names, whole or not."""
    return any(
        name in (SAFETENSORS_INDEX, _PICKLE_FILE, _PICKLE_INDEX) or name.endswith(".safetensors") for name in names
    )


def config_and_tokenizer_files(names: Collection[str]) -> tuple[str, ...]:
    """Configuration and tokenizer files among the names."""
    return tuple(sorted(name for name in names if name.endswith(_SMALL_SUFFIXES)))


def _shards(names: Collection[str], named: tuple[str, ...], stem: str, suffix: str, where: str) -> tuple[str, ...]:
    if named:
        missing = [shard for shard in named if shard not in names]
        if missing:
            raise CheckpointError(
                f"{where} lacks {len(missing)} of its {len(named)} weight shards, first {missing[0]}. Fetch or save it again."
            )
        return named
    pattern = re.compile(rf"{stem}-\d+-of-(\d+)\.{suffix}")
    found = {name: int(match[1]) for name in sorted(names) if (match := pattern.fullmatch(name))}
    total = max(found.values(), default=0)
    if not found or len(found) < total:
        raise CheckpointError(
            f"{where} has {len(found)} of its {total or 'announced'} weight shards. Fetch or save it again."
        )
    return tuple(found)


def _why_not(names: Collection[str]) -> str:
    if "adapter_model.safetensors" in names or "adapter_config.json" in names:
        return "it is a LoRA adapter. Merge it into its base model (PEFT's merge_and_unload) and save that."
    if any(name.endswith(".distcp") or name == ".metadata" or name.startswith("pytorch_model_fsdp") for name in names):
        return "it holds FSDP shards. Convert them with `accelerate merge-weights`."
    if "zero_to_fp32.py" in names or any(name.startswith(("mp_rank_", "zero_pp_rank_")) for name in names):
        return "it holds DeepSpeed shards. Convert them with its zero_to_fp32.py."
    several = sum(name.endswith(".safetensors") for name in names)
    if several > 1:
        return f"{several} safetensors files, but neither model.safetensors nor {SAFETENSORS_INDEX}."
    return f"neither model.safetensors nor {SAFETENSORS_INDEX}. Save the model with save_pretrained()."


def check_model_folder(folder: Path, *, allow_pickle: bool = False) -> CheckpointFiles:
    """Look over one model folder without reading its weights.

    Raises:
        CheckpointFault: something is missing, cut off or unreadable; one line that names it.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    chosen = choose_weight_files(names, str(folder), allow_pickle=allow_pickle, shards=_indexed_shards(folder, names))
    read_json(folder / "config.json")
    for name in chosen:
        if name.endswith(".safetensors"):
            read_safetensors_header(folder / name)
        elif not (folder / name).stat().st_size:
            raise CheckpointError(f"{folder / name} is empty. Fetch or save it again.")
    return CheckpointFiles(
        tuple(WeightFile(name, (folder / name).stat().st_size) for name in chosen), config_and_tokenizer_files(names)
    )


def _indexed_shards(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """The shards that an index on disk names."""
    for index in (SAFETENSORS_INDEX, _PICKLE_INDEX):
        if index in names:
            weight_map = read_json(folder / index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{folder / index} names no shards. Fetch or save it again.")
            return tuple(sorted(set(map(str, weight_map.values()))))
    return ()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointFault: there is no such file, or no object in it.
    """
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is no regular file. Fetch or save it again.")
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}. Save the model with save_pretrained().") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Fetch or save it again.") from None
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        CheckpointFault: it holds none.
    """
    try:
        told = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} cannot be read ({error}). Fetch or save it again.") from None
    if not isinstance(told, dict):
        raise CheckpointError(f"{where} holds no JSON object but a {type(told).__name__}. Fetch or save it again.")
    return told


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """The table of tensors of a safetensors file that is as long as its table says.

    Raises:
        CheckpointFault: cut off, a git-lfs pointer, or no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if first == b"version ":
            raise CheckpointError(
                f"{path} is a git-lfs pointer, not the weights. Run `git lfs pull` in its repository."
            )
        if len(first) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{path} is cut off or no safetensors file ({size} bytes). Fetch or save it again.")
        try:
            table = json.loads(file.read(length))
            end = 8 + length + max((_tensor_end(t) for n, t in table.items() if n != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CheckpointError(f"{path} has an unreadable header. Fetch or save it again.") from None
    if end != size:
        state = "cut off" if size < end else "too long"
        raise CheckpointError(f"{path} is {state}: {size} bytes, its header says {end}. Fetch or save it again.")
    return dict(table)


def _tensor_end(tensor: dict[str, Any]) -> int:
    """Where a tensor ends, behind the header.

    Raises:
        ValueError, KeyError, TypeError: its entry has no such form.
    """
    first, last = tensor["data_offsets"]
    counts = [first, last, *tensor["shape"]]
    if not all(type(n) is int and n >= 0 for n in counts) or first > last or type(tensor["dtype"]) is not str:
        raise ValueError
    return int(last)
