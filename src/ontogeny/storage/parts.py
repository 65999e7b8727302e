"""Parts of a run: one file a unit while a checkpoint is measured, one file a checkpoint afterwards, and an index of both.

    records/UNIT.parquet      directions/UNIT.safetensors      scores/UNIT.safetensors       one unit, as it was measured
    records/at-PLACE.parquet  directions/at-PLACE.safetensors  scores/at-PLACE.safetensors   all units of one checkpoint
    index.json                                                                               headers of the parts

Compaction merges the unit parts of a checkpoint. Its records are written last: a unit is finished where a records part holds it. The index
is a cache: an entry counts only while its file has the size and time of the entry, else the file itself is read.
"""

import contextlib
import functools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.storage import checksums
from ontogeny.storage.files import (
    DamagedPart,
    content_digest,
    read_tensor_header,
    scratch_connection,
    sql_path,
)
from ontogeny.storage.merging import (
    StoredTensor,
    crc32_by_tensors,
    read_stored_tensors,
    stored_tensors_of,
    write_stored_tensors,
)

KINDS = ("records", "directions", "scores")
_ENDINGS = {"records": ".parquet", "directions": ".safetensors", "scores": ".safetensors"}
_MERGED = "at-"
_INDEX_FILE = "index.json"
_INDEX_VERSION = 1
_INDEXED = ("records", "directions")
_ROW_GROUP = 16_384
"""Rows of a row group. Rows are sorted by metric, so that a query of one metric skips most groups; those of heads, the most, are last."""
_ROW_ORDER = "head is not null, metric, control, method, split, concept, site"

UNIT_HEADER_KEYS = ("concept", "stage", "checkpoint", "step", "order", "sites", "methods")
"""Keys that the header of every directions file must have."""
UnitHeader = Mapping[str, Any]


@dataclass(frozen=True)
class Holders:
    """Which records part holds which unit."""

    parts: Mapping[str, str]
    """Name of the records part of each finished unit."""
    stale: frozenset[str] = frozenset()
    """Unit parts that a checkpoint part replaces: left by a kill between the merge and the removal."""


_holders: dict[Path, tuple[int, Holders]] = {}
_headers: dict[Path, tuple[int, Mapping[str, UnitHeader]]] = {}
_units: dict[Path, tuple[tuple[int, int, int], dict[str, UnitHeader]]] = {}
_sites: deque[Any] = deque(maxlen=8)
"""Sites of the headers that were read last."""
_indexes: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}


def read_holders(folder: Path) -> Holders:
    """The finished units of a run directory; read again only after its records changed."""
    changed = _change_time(folder, "records")
    known = _holders.get(folder)
    if known is None or known[0] != changed:
        known = _holders[folder] = (changed, _holders_of(_entries(folder, "records")))
    return known[1]


def read_headers(folder: Path) -> Mapping[str, UnitHeader]:
    """The header of the directions of each unit that has some, finished or not; read again only after they changed.

    Raises:
        DamagedPart: a file is damaged or lost.
    """
    changed = _change_time(folder, "directions")
    known = _headers.get(folder)
    if known is None or known[0] != changed:
        _check_none_lost(folder, "directions")
        known = _headers[folder] = (changed, _headers_of(_entries(folder, "directions")))
    return known[1]


@contextlib.contextmanager
def adding_unit(folder: Path, unit: str, header: UnitHeader | None) -> Iterator[None]:
    """Enter a unit that the block writes, so that nothing is read again; what another process wrote before is read first."""
    holders = read_holders(folder)
    headers = None if header is None else read_headers(folder)
    yield
    _remember_holders(folder, Holders({**holders.parts, unit: unit}, holders.stale - {unit}))
    if header is not None and headers is not None:
        _remember_headers(folder, {**headers, unit: header})


def _remember_holders(folder: Path, holders: Holders) -> None:
    _holders[folder] = (_change_time(folder, "records"), holders)


def _remember_headers(folder: Path, headers: Mapping[str, UnitHeader]) -> None:
    _headers[folder] = (_change_time(folder, "directions"), headers)


def save_index(folder: Path) -> None:
    """Write index.json unless it is up to date, so that the next process reads one file instead of every header."""
    saved, entries = _saved_index(folder), {kind: _entries(folder, kind) for kind in _INDEXED}
    if saved == entries:
        return
    sites: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for kind in _INDEXED:
        parts[kind] = {}
        for name, entry in entries[kind].items():
            units = {unit: _with_sites_by_key(header, sites) for unit, header in entry["units"].items()}
            parts[kind][name] = {**entry, "units": units}
    content = {"version": _INDEX_VERSION, "sites": sites, "parts": parts}
    with checksums.atomic_part(folder / _INDEX_FILE, folder) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def _with_sites_by_key(header: UnitHeader, sites: dict[str, Any]) -> UnitHeader:
    """The header with a key in the place of its sites, which many headers share; `sites` gets them."""
    if "sites" not in header:
        return header
    key = content_digest(header["sites"])
    sites[key] = header["sites"]
    return {**header, "sites": key}


def record_parts(folder: Path) -> list[Path]:
    """The files of the table, each unit once.

    Raises:
        DamagedPart: a file is damaged or lost.
    """
    _check_none_lost(folder, "records")
    stale = read_holders(folder).stale
    paths = [path for path in sorted((folder / "records").glob("*.parquet")) if path.stem not in stale]
    for path in paths:
        checksums.check_file(path)
    return paths


def _check_none_lost(folder: Path, kind: str) -> None:
    for path in checksums.lost_files(folder, kind):
        raise DamagedPart(path, "lost")


def read_unit_tensors(folder: Path, kind: str, unit: str, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Some or all tensors of a unit.

    Raises:
        DamagedPart: the file is damaged or lost.
    """
    path, prefix = _tensor_file(folder, kind, unit)
    checksums.check_by_tensors(path, crc32_by_tensors)
    if names is None:
        wanted = [name for name in stored_tensors_of(path) if name.startswith(prefix)]
    else:
        wanted = [f"{prefix}{name}" for name in names]
    found = read_stored_tensors(path, wanted)
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def read_unit_rows(folder: Path, kind: str, unit: str, name: str, rows: slice) -> Any:
    """A slice of the first axis of one tensor.

    Raises:
        DamagedPart: the file is damaged or lost.
    """
    path, prefix = _tensor_file(folder, kind, unit)
    checksums.check_by_tensors(path, crc32_by_tensors)
    return read_stored_tensors(path, [f"{prefix}{name}"], rows)[f"{prefix}{name}"]


def drop_unit(folder: Path, unit: str) -> None:
    """Remove a unit; its records first, since they mark it as done."""
    holders, headers = read_holders(folder), read_headers(folder)
    part = holders.parts.get(unit, "")
    if part.startswith(_MERGED):
        others = [other for other, name in holders.parts.items() if name == part and other != unit]
        if others:
            _write_merged_records(folder, part, others)  # first, so that no unit is finished and without tensors
        _write_merged_tensors(folder, part, others)
    _unlink(folder, unit)
    left = {other: name for other, name in holders.parts.items() if other != unit}
    _remember_holders(folder, Holders(left, holders.stale - {unit}))
    _remember_headers(folder, {other: header for other, header in headers.items() if other != unit})


def compact_checkpoint(folder: Path, stage: str | None, checkpoint: str, units: Sequence[str]) -> None:
    """Merge the unit parts of one checkpoint, and its checkpoint part if there is one, into one part.

    Args:
        units: Finished units of the checkpoint; those without a part of their own are in the checkpoint part already.
    """
    name = f"{_MERGED}{content_digest([stage, checkpoint])}"
    holders, headers = read_holders(folder), read_headers(folder)
    single = [unit for unit in units if holders.parts.get(unit) == unit]
    if not single:
        return
    every = [*(unit for unit, part in holders.parts.items() if part == name), *single]
    _write_merged_tensors(folder, name, every)
    _write_merged_records(folder, name, every)
    for unit in single:
        _unlink(folder, unit)
    _remember_holders(folder, Holders({**holders.parts, **dict.fromkeys(every, name)}, holders.stale))
    _remember_headers(folder, headers)


def remove_stale_parts(folder: Path) -> None:
    """Remove unit parts that a killed compaction left behind. The caller must hold the folder's lock."""
    holders = read_holders(folder)
    merged = {unit for unit, part in holders.parts.items() if part.startswith(_MERGED)}
    left = {name for kind in KINDS for name, _, _ in _files(folder / kind, _ENDINGS[kind])} & merged
    for unit in left:
        _unlink(folder, unit)
    if left:
        _remember_holders(folder, Holders(holders.parts))
        _headers.pop(folder, None)


def part_names(folder: Path, kind: str) -> dict[str, Path]:
    """The files of a kind by the names of their parts."""
    return {name: _path(folder, kind, name) for name, _, _ in _files(folder / kind, _ENDINGS[kind])}


def check_header(folder: Path, kind: str, name: str) -> None:
    """Raise `DamagedPart` if the header of a part cannot be read; those in the index are not read again."""
    path = _path(folder, kind, name)
    if kind == "scores":
        if not checksums.is_entered(path):
            read_tensor_header(path)
        return
    stat, entry = path.stat(), _saved_entries(folder, kind).get(name)
    if entry is None or (entry["size"], entry["time"]) != (stat.st_size, stat.st_mtime_ns):
        _read_units(folder, kind, name)
        if kind == "records" and not checksums.is_entered(path):
            _check_parquet(path)


def remove_part(folder: Path, part: str) -> None:
    """Remove a part that is damaged, with all its units. The caller must hold the folder's lock."""
    _unlink(folder, part)
    for kind in KINDS:  # a lost file is still missed
        checksums.enter_removal(folder, [_path(folder, kind, part)])
    _holders.pop(folder, None)
    _headers.pop(folder, None)


def _unlink(folder: Path, part: str) -> None:
    paths = [_path(folder, kind, part) for kind in KINDS]
    checksums.enter_removal(folder, paths)
    for path in paths:
        path.unlink(missing_ok=True)


def _write_merged_tensors(folder: Path, name: str, units: Sequence[str]) -> None:
    """Write the tensors of exactly these units as a checkpoint part; remove the whole part if there are none."""
    if not units:
        _unlink(folder, name)
        return
    for kind in ("directions", "scores"):
        headers: dict[str, UnitHeader] = {}
        tensors: dict[str, StoredTensor] = {}
        stored: dict[Path, dict[str, StoredTensor]] = {}
        for unit in units:
            path, prefix = _tensor_file(folder, kind, unit)
            if not path.is_file():
                _check_none_lost(folder, kind)
                continue
            checksums.check_file(path)
            header = read_tensor_header(path)
            if prefix:
                sites = header["sites"]
                header = header["units"][unit]
                header = header | {"sites": sites[header["sites"]]} if "sites" in header else header
            headers[unit] = header
            if path not in stored:
                stored[path] = stored_tensors_of(path)
            tensors |= {f"{unit}/{key}": stored[path][f"{prefix}{key}"] for key in header["tensors"]}
        if headers:
            shared, unit_headers = _share_sites(headers)
            content = {"units": unit_headers, "sites": shared}
            write = functools.partial(write_stored_tensors, tensors=tensors, header=content)
            checksums.write_part(_path(folder, kind, name), write)


def _share_sites(headers: Mapping[str, UnitHeader]) -> tuple[list[Any], dict[str, UnitHeader]]:
    """Each list of sites once; the headers name it by its place."""
    shared: list[Any] = []
    unit_headers = {}
    for unit, header in headers.items():
        if "sites" in header:
            if header["sites"] not in shared:
                shared.append(header["sites"])
            header = {**header, "sites": shared.index(header["sites"])}
        unit_headers[unit] = header
    return shared, unit_headers


def _write_merged_records(folder: Path, name: str, units: Sequence[str]) -> None:
    holders = read_holders(folder).parts
    sources = [_path(folder, "records", source) for source in sorted({holders[unit] for unit in units})]
    for source in sources:
        checksums.check_file(source)
    files = ", ".join(f"'{sql_path(source)}'" for source in sources)
    metadata = json.dumps(sorted(units)).replace("'", "''")
    with checksums.atomic_part(_path(folder, "records", name)) as temporary, scratch_connection() as connection:
        connection.execute(
            f"copy (select * from read_parquet([{files}]) where unit in (select unnest(?)) order by {_ROW_ORDER}) "
            f"to '{sql_path(temporary)}' (format parquet, compression zstd, parquet_version v2, row_group_size {_ROW_GROUP}, "
            f"kv_metadata {{units: '{metadata}'}})",
            [list(units)],
        )


# --- the index --------------------------------------------------------------------------------------------------------

_Entries = dict[str, dict[str, Any]]
"""Part name -> size, time, and units with their headers ({} for records)."""


def _entries(folder: Path, kind: str) -> _Entries:
    saved = _saved_entries(folder, kind)
    entries = {}
    for name, size, time in _files(folder / kind, _ENDINGS[kind]):
        entry = saved.get(name)
        if entry is None or (entry["size"], entry["time"]) != (size, time):
            entry = {"size": size, "time": time, "units": _read_units(folder, kind, name)}
        entries[name] = entry
    return entries


def _read_units(folder: Path, kind: str, name: str) -> dict[str, UnitHeader]:
    path = _path(folder, kind, name)
    checksums.check_file(path)
    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    known = _units.get(path)
    if known is None or known[0] != state:
        known = _units[path] = (state, _units_in(path, kind, name))
    return known[1]


def _units_in(path: Path, kind: str, name: str) -> dict[str, UnitHeader]:
    if not name.startswith(_MERGED):
        return {name: {} if kind == "records" else _with_shared_sites(read_tensor_header(path, UNIT_HEADER_KEYS))}
    if kind == "records":
        return {unit: {} for unit in _units_of_records(path)}
    header = read_tensor_header(path, ["units", "sites"])
    return {
        unit: _with_shared_sites({**own, "sites": header["sites"][own["sites"]]}) if "sites" in own else own
        for unit, own in header["units"].items()
    }


def _with_shared_sites(header: UnitHeader) -> UnitHeader:
    """The header with the very object of equal sites that another header has: of thousands of units each would hold its own names."""
    if "sites" not in header:
        return header
    shared = next((sites for sites in _sites if sites == header["sites"]), None)
    if shared is None:
        _sites.append(shared := header["sites"])
    return {**header, "sites": shared}


def _units_of_records(path: Path) -> list[str]:
    import duckdb

    try:
        with scratch_connection() as connection:
            rows = connection.execute(
                f"select value from parquet_kv_metadata('{sql_path(path)}') where key = 'units'"
            ).fetchall()
        units: list[str] = json.loads(rows[0][0])
    except (duckdb.Error, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it names no units"
        raise DamagedPart(path, f"damaged ({reason})") from None
    return units


def _check_parquet(path: Path) -> None:
    import duckdb

    try:
        with scratch_connection() as connection:
            connection.execute(f"select 1 from read_parquet('{sql_path(path)}') limit 0")
    except duckdb.Error as error:
        raise DamagedPart(path, f"damaged ({str(error).splitlines()[0]})") from None


def _holders_of(entries: _Entries) -> Holders:
    merged = {unit: name for name, entry in entries.items() if name.startswith(_MERGED) for unit in entry["units"]}
    single = {name for name in entries if not name.startswith(_MERGED)}
    return Holders({name: name for name in single} | merged, frozenset(single & merged.keys()))


def _headers_of(entries: _Entries) -> dict[str, UnitHeader]:
    return {unit: header for entry in entries.values() for unit, header in entry["units"].items()}


def _saved_entries(folder: Path, kind: str) -> _Entries:
    return _saved_index(folder).get(kind, {})


def _saved_index(folder: Path) -> dict[str, _Entries]:
    """Content of index.json, by kind, if it can be read and is of this version; parsed once while it stays the same."""
    path = folder / _INDEX_FILE
    try:
        stat = path.stat()
        state = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        known = _indexes.get(folder)
        if known is None or known[0] != state:
            known = _indexes[folder] = (state, _parse_index(path, folder))
    except (OSError, DamagedPart):
        return {}
    return known[1]


def _parse_index(path: Path, folder: Path) -> dict[str, _Entries]:
    try:
        checksums.check_file(path, folder)
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["version"] != _INDEX_VERSION:
            return {}
        index: dict[str, _Entries] = {kind: saved["parts"][kind] for kind in _INDEXED}
        for entry in (entry for entries in index.values() for entry in entries.values()):
            for header in entry["units"].values():
                if "sites" in header:
                    header["sites"] = saved["sites"][header["sites"]]
    except (DamagedPart, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return index


def _files(folder: Path, ending: str) -> list[tuple[str, int, int]]:
    """Name, size and time of each part in a folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [(e.name, e.stat()) for e in entries if e.name.endswith(ending) and not e.name.startswith(".")]
    return sorted((name.removesuffix(ending), stat.st_size, stat.st_mtime_ns) for name, stat in found)


def _change_time(folder: Path, kind: str) -> int:
    try:
        return os.stat(
            f"{folder}/{kind}"
        ).st_mtime_ns  # asked before each read of a tensor: a new `Path` would cost more
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _tensor_file(folder: Path, kind: str, unit: str) -> tuple[Path, str]:
    """The file that holds a unit's tensors, and what their names begin with in it."""
    holder = read_holders(folder).parts.get(unit, unit)
    merged = holder.startswith(_MERGED)
    return _path(folder, kind, holder), f"{unit}/" if merged else ""


@functools.lru_cache(maxsize=4096)
def _path(folder: Path, kind: str, name: str) -> Path:
    return folder / kind / f"{name}{_ENDINGS[kind]}"
