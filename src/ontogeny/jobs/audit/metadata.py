"""Metadata of checkpoints, without their weights: hashes from the Hub, headers and small files by byte range.

A file that several checkpoints share (the same hash on the Hub) is read once; of large files only the first kilobytes.
Source of the layout: github.com/huggingface/safetensors, "Format".
"""

import functools
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Checkpoint, Lineage, WeightFile, hub, weight_fingerprint
from ontogeny.lineage import weight_files as layout
from ontogeny.lineage.fetch import checkpoint_config, complete_snapshot, file_digest

HEADER_READ_BYTES = 16_384
"""Bytes of the first request for a weight file; most headers are shorter."""
_MAX_PARSED_BYTES = 32 * 2**20
"""Small files above this size are compared by hash only."""


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as its header describes it."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


class TensorTable(dict[str, TensorEntry]):
    """Tensors of a weight file by name; files with equal headers share one."""

    @functools.cached_property
    def shapes(self) -> dict[str, list[int]]:
        return {name: list(entry.shape) for name, entry in self.items()}

    @functools.cached_property
    def dtypes(self) -> dict[str, str]:
        return {name: entry.dtype for name, entry in self.items()}


def checkpoint_names(lineage: Lineage) -> dict[Checkpoint, str]:
    """Name of each checkpoint in findings: with its stage where there are several."""
    several = len(lineage.stages) > 1
    return {c: f"{c.stage} {c.name}" if several and c.name != c.stage else c.name for c in lineage.checkpoints}


@dataclass(frozen=True)
class CheckpointMetadata:
    """Metadata that the audit compares; None or empty if it could not be read."""

    checkpoint: Checkpoint
    identity: str | None = None
    """Equal for equal weights."""
    weights: tuple[WeightFile, ...] = ()
    tables: Mapping[str, TensorTable] = field(default_factory=dict)
    """Tensors of each weight file."""
    index: Mapping[str, str] = field(default_factory=dict)
    """Shard of each tensor according to the index; empty without an index."""
    total: int | None = None
    """Bytes of all tensors according to the index."""
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    """Hash of tokenizer.json, else of tokenizer.model or vocab.json."""
    vocabulary: str | None = None
    """Hash of the token ids, whatever the formatting of the file."""
    template: str | None = None
    """Hash of the chat template."""
    bytes_read: int = 0
    """Bytes that were read."""
    problems: tuple[tuple[str, str], ...] = ()
    """Kind and text of each fault of this checkpoint alone."""
    unread: tuple[str, ...] = ()
    """Files of tensors beside the weights."""
    adapter: bool = False
    """Whether the weights are those of a LoRA adapter, and the config is its base model's."""

    shown: str = ""
    """Name in findings, see `checkpoint_names`."""

    @property
    def name(self) -> str:
        return self.shown or self.checkpoint.name

    @property
    def tensors(self) -> Mapping[str, TensorEntry]:
        return {name: entry for table in self.tables.values() for name, entry in table.items()}


class MetadataReader:
    """Reads the metadata of checkpoints; thread-safe, and files with equal content are read once."""

    def __init__(self, *, allow_pickle: bool = False, identities: Mapping[Checkpoint, str] | None = None) -> None:
        self.allow_pickle = allow_pickle
        self.identities = identities or {}
        self.known: dict[tuple[str, str], Any] = {}
        self.locks: dict[tuple[str, str], threading.Lock] = {}
        self.lock = threading.Lock()

    def metadata(self, checkpoint: Checkpoint) -> CheckpointMetadata:
        """Metadata of one checkpoint; its faults become `problems`, not errors."""
        try:
            return _MetadataReading(self, checkpoint, _open(checkpoint)).metadata()
        except BadInput as error:
            return CheckpointMetadata(checkpoint, problems=(("unreadable", str(error)),))

    def once(self, key: tuple[str, str], read: Any) -> Any:
        """The result of `read`, computed once per key; errors are not kept, since they may be transient."""
        with self.lock:
            lock = self.locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self.known:
                self.known[key] = read()
            return self.known[key]


@dataclass(frozen=True)
class _CheckpointFiles:
    """The files of one checkpoint, local or on the Hub."""

    where: str
    by_name: Mapping[str, WeightFile]
    folder: Path | None
    checkpoint: Checkpoint
    commit: str | None

    def read(self, name: str, start: int, stop: int) -> bytes:
        if self.folder is not None:
            with (self.folder / name).open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        c = self.checkpoint
        return hub.read_hub_range(
            c.source, c.revision or "main", self.commit or c.revision or "main", c.path_of(name), start, stop
        )


def _open(checkpoint: Checkpoint) -> _CheckpointFiles:
    folder = Path(checkpoint.source) if checkpoint.is_local else complete_snapshot(checkpoint, allow_pickle=True)
    if folder is not None:
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is not a folder any more: open the lineage again.")
        sizes = {path.name: WeightFile(path.name, path.stat().st_size) for path in folder.iterdir() if path.is_file()}
        return _CheckpointFiles(str(folder), sizes, folder, checkpoint, None)
    files, commit = hub.list_hub_files(*checkpoint.hub_place)
    return _CheckpointFiles(f"{checkpoint.source} at {checkpoint.revision}", files, None, checkpoint, commit)


class _MetadataReading:
    """Reads the metadata of one checkpoint, counting bytes and faults."""

    def __init__(self, reader: MetadataReader, checkpoint: Checkpoint, files: _CheckpointFiles) -> None:
        self.reader, self.checkpoint, self.files = reader, checkpoint, files
        self.bytes = 0
        self.problems: list[tuple[str, str]] = []

    def metadata(self) -> CheckpointMetadata:
        index, total = self._index()
        weights = self._weights(tuple(sorted(set(index.values()))))
        tables = {file.name: self._table(file) for file in weights if file.name.endswith(".safetensors")}
        adapter = layout.is_adapter(self.files.by_name)
        elsewhere = adapter or ((folder := self.files.folder) is not None and layout.config_folder(folder) != folder)
        config = self._base_config() if elsewhere else self._json("config.json") or {}
        identity = self.reader.identities.get(self.checkpoint)
        try:
            identity = identity or weight_fingerprint(self.checkpoint, allow_pickle=self.reader.allow_pickle)
        except BadInput as error:
            if not self.problems:
                self.problems.append(("unreadable", str(error)))
        tokenizer, vocabulary = self._tokenizer()
        return CheckpointMetadata(
            self.checkpoint,
            identity,
            self._with_hashes(weights),
            {name: table for name, table in tables.items() if table is not None},
            index,
            total,
            config,
            tokenizer,
            vocabulary,
            self._template(),
            self.bytes,
            tuple(self.problems),
            layout.unread_weight_files(self.files.by_name, [file.name for file in weights]) if weights else (),
            adapter,
        )

    def _base_config(self) -> dict[str, Any]:
        try:
            return checkpoint_config(self.checkpoint)
        except BadInput as error:
            self.problems.append(("unreadable", str(error)))
            return {}

    def _with_hashes(self, weights: tuple[WeightFile, ...]) -> tuple[WeightFile, ...]:
        """Weight files with their hashes; those of local shards are computed, as the Hub lists them."""
        if self.files.folder is None or len(weights) < 2:
            return weights
        folder = self.files.folder
        return tuple(f if f.sha256 else replace(f, sha256=file_digest(folder / f.name)) for f in weights)

    def _index(self) -> tuple[dict[str, str], int | None]:
        if layout.SAFETENSORS_INDEX not in self.files.by_name or "model.safetensors" in self.files.by_name:
            return {}, None
        index = self._json(layout.SAFETENSORS_INDEX) or {}
        shards, header = index.get("weight_map"), index.get("metadata")
        total = header.get("total_size") if isinstance(header, dict) else None
        if not isinstance(shards, dict) or not shards:
            self.problems.append(("shards", f"{layout.SAFETENSORS_INDEX} names no shards"))
            return {}, None
        return {str(k): str(v) for k, v in shards.items()}, total if isinstance(total, int) else None

    def _weights(self, shards: tuple[str, ...]) -> tuple[WeightFile, ...]:
        files = self.files.by_name
        lost = [name for name in shards if name not in files]
        if lost:
            self.problems.append(("shards", f"{len(lost)} of {len(shards)} weight shards are missing, first {lost[0]}"))
            return tuple(files[name] for name in shards if name in files)
        try:
            folder = self.files.folder
            if folder is not None and layout.sharded_weights(folder) is not None:
                return layout.check_model_folder(folder, allow_pickle=self.reader.allow_pickle).weights
            names = layout.choose_weight_files(
                files, self.files.where, allow_pickle=self.reader.allow_pickle, shards=shards
            )
        except CheckpointError as error:
            self.problems.append(("unreadable", str(error)))
            return ()
        return tuple(files[name] for name in names)

    def _table(self, file: WeightFile) -> TensorTable | None:
        try:
            table: TensorTable = self._once("header", file, lambda: self._header(file))
            return table
        except CheckpointError as error:
            self.problems.append(("truncated" if "bytes" in str(error) else "unreadable", str(error)))
            return None

    def _header(self, file: WeightFile) -> TensorTable:
        first = self._bytes(file.name, 0, min(HEADER_READ_BYTES, file.size))
        length = int.from_bytes(first[:8], "little")
        if first.startswith(b"version "):
            raise CheckpointError(f"{file.name} is a git-lfs pointer, not the weights")
        if len(first) < 8 or length > min(layout.MAX_HEADER_BYTES, file.size - 8):
            raise CheckpointError(f"{file.name} is cut off or not a safetensors file ({file.size} bytes)")
        if 8 + length > len(first):
            first += self._bytes(file.name, len(first), 8 + length)
        text = first[8 : 8 + length]
        try:
            # The checkpoints of a training run have equal headers.
            table, size = self.reader.once(("table", hashlib.sha256(text).hexdigest()), lambda: _parse_header(text))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
            raise CheckpointError(f"{file.name} has an unreadable header") from None
        end = 8 + length + size
        if end != file.size:
            state = "cut off" if file.size < end else "too long"
            raise CheckpointError(f"{file.name} is {state}: {file.size} bytes, its header says {end}")
        return table

    def _tokenizer(self) -> tuple[str | None, str | None]:
        name = next((n for n in ("tokenizer.json", "tokenizer.model", "vocab.json") if n in self.files.by_name), None)
        if name is None:
            return None, None
        file = self.files.by_name[name]
        if file.size > _MAX_PARSED_BYTES:
            return file.sha256, None
        content: tuple[str, str | None] = self._once("tokenizer", file, lambda: _vocabulary(self._whole(file)))
        return content

    def _template(self) -> str | None:
        if "chat_template.jinja" in self.files.by_name:
            file = self.files.by_name["chat_template.jinja"]
            text: str = self._once("template", file, lambda: _hash(self._whole(file)))
            return text
        template = (self._json("tokenizer_config.json") or {}).get("chat_template")
        return (
            None
            if template is None
            else _hash((template if isinstance(template, str) else json.dumps(template)).encode())
        )

    def _json(self, name: str) -> dict[str, Any] | None:
        file = self.files.by_name.get(name)
        if file is None or file.size > _MAX_PARSED_BYTES:
            return None

        def parse() -> dict[str, Any]:
            try:
                content = json.loads(self._whole(file))
            except (ValueError, RecursionError):
                raise CheckpointError(f"{name} is not JSON") from None
            if not isinstance(content, dict):
                raise CheckpointError(f"{name} must hold a JSON object")
            return content

        try:
            content: dict[str, Any] = self._once("json", file, parse)
            return content
        except CheckpointError as error:
            self.problems.append(("unreadable", str(error)))
            return None

    def _whole(self, file: WeightFile) -> bytes:
        return self._bytes(file.name, 0, file.size) if file.size else b""

    def _bytes(self, name: str, start: int, stop: int) -> bytes:
        content = self.files.read(name, start, stop)
        self.bytes += len(content)
        return content

    def _once(self, what: str, file: WeightFile, read: Any) -> Any:
        # A local file has no hash to recognise it by.
        return self.reader.once((what, file.sha256), read) if file.sha256 else read()


def _parse_header(text: bytes) -> tuple[TensorTable, int]:
    """The tensors of a safetensors header, and where the last one ends."""
    rows = {name: row for name, row in json.loads(text).items() if name != "__metadata__"}
    table = TensorTable({name: _entry(row) for name, row in rows.items()})
    return table, max((row["data_offsets"][1] for row in rows.values()), default=0)


def _entry(row: Mapping[str, Any]) -> TensorEntry:
    start, end = row["data_offsets"]
    return TensorEntry(str(row["dtype"]), tuple(map(int, row["shape"])), int(end) - int(start))


def _vocabulary(content: bytes) -> tuple[str, str | None]:
    """Hashes of the file and, if it is JSON, of the token ids in it."""
    try:
        tokenizer = json.loads(content)
        model = tokenizer.get("model", tokenizer) if isinstance(tokenizer, dict) else tokenizer
        core = [model.get("vocab", model), model.get("merges"), tokenizer.get("added_tokens")]
    except (ValueError, AttributeError, RecursionError):
        return _hash(content), None
    return _hash(content), _hash(json.dumps(core, sort_keys=True).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
