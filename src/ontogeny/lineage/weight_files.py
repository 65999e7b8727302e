"""Weight files of a model folder: which files are the weights, and are they complete?

A safetensors file begins with the length of its header and a JSON table of offsets, so a truncated file is detected without reading
it. Source: github.com/huggingface/safetensors, "Format".
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
    """Choose the weight files of a folder as transformers does.

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
    single = sorted(name for name in names if name.endswith(".safetensors") and not name.startswith("adapter"))
    if len(single) == 1:
        return (single[0],)
    if _PICKLE_FILE in names or _PICKLE_INDEX in names:
        if not allow_pickle:
            raise CheckpointError(
                f"{where} holds its weights only as a pickle ({_PICKLE_FILE}), which can run code when loaded: if you trust it, "
                "set `allow_pickle`."
            )
        return (_PICKLE_FILE,) if _PICKLE_FILE in names else _shards(names, shards, "pytorch_model", "bin", where)
    raise CheckpointError(f"{where} has no weights ({_explain_missing(names)}).")


def has_weights(names: Collection[str]) -> bool:
    """Whether the names include weights that transformers would load, complete or not."""
    return any(
        name in (SAFETENSORS_INDEX, _PICKLE_FILE, _PICKLE_INDEX) or name.endswith(".safetensors") for name in names
    )


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


def _explain_missing(names: Collection[str]) -> str:
    if "adapter_model.safetensors" in names or "adapter_config.json" in names:
        return "it is a LoRA adapter: merge it into its base model with PEFT's merge_and_unload and save that"
    if any(name.endswith(".distcp") or name == ".metadata" or name.startswith("pytorch_model_fsdp") for name in names):
        return "it holds FSDP shards: convert them with `accelerate merge-weights`"
    if "zero_to_fp32.py" in names or any(name.startswith(("mp_rank_", "zero_pp_rank_")) for name in names):
        return "it holds DeepSpeed shards: convert them with its zero_to_fp32.py"
    several = sum(name.endswith(".safetensors") for name in names)
    if several > 1:
        return f"{several} safetensors files, but neither model.safetensors nor {SAFETENSORS_INDEX}"
    return f"neither model.safetensors nor {SAFETENSORS_INDEX}: save the model with save_pretrained()"


def check_model_folder(folder: Path, *, allow_pickle: bool = False) -> CheckpointFiles:
    """Check a model folder without reading its weights.

    Raises:
        CheckpointError: a file is missing, truncated or unreadable.
    """
    names = [path.name for path in folder.iterdir() if path.is_file()]
    chosen = choose_weight_files(names, str(folder), allow_pickle=allow_pickle, shards=_indexed_shards(folder, names))
    read_json(folder / "config.json")
    for name in chosen:
        if name.endswith(".safetensors"):
            read_safetensors_header(folder / name)
        elif not (folder / name).stat().st_size:
            raise CheckpointError(f"{folder / name} is empty: fetch or save it again.")
    return CheckpointFiles(
        tuple(WeightFile(name, (folder / name).stat().st_size) for name in chosen), config_and_tokenizer_files(names)
    )


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
