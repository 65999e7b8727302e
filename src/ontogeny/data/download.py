"""Third-party data, named by repository, path, commit and sha256: fetched once by pooch, kept in the user's cache, never copied here.

`ONTOGENY_DATA` names a local folder that is read instead. Its files may be subsets, so that they are checked for their columns, not for
the hash of the upstream file. Where no upstream hash is known, what is fetched is checked for its columns and the number of its rows.
"""

import csv
import gzip
import io
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ontogeny.errors import BadInput

_T = TypeVar("_T")

GITHUB_RAW_URL = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class DataSource:
    """One file of a public repository."""

    file: str
    """Its place in the folder that ONTOGENY_DATA names."""
    repository: str
    path: str
    """In the repository; one that ends with / is a folder of archives, which cannot be fetched as one file."""
    commit: str
    sha256: str | None
    """Of the upstream file; None where it is not known."""
    columns: tuple[str, ...] = ()
    """Those that must be there; of a document, its keys."""
    rows: int | None = None
    """Stated where there is no hash."""

    @property
    def url(self) -> str:
        return f"{GITHUB_RAW_URL}/{self.repository}/{self.commit}/{self.path}"

    def __str__(self) -> str:
        return f"{self.repository}/{self.path} @ {self.commit[:12]}"


def cite_sources(*sources: DataSource, paper: str) -> str:
    """Where a concept comes from, for `Concept.source`."""
    places = sorted({f"{s.repository} @ {s.commit[:12]}" for s in sources}) if len(sources) > 2 else map(str, sources)
    read_from = "; read from ONTOGENY_DATA" if os.environ.get("ONTOGENY_DATA") else ""
    return f"{'; '.join(places)} ({paper}){read_from}"


def read_rows(source: DataSource) -> list[dict[str, Any]]:
    """The rows of a CSV, TSV or JSON file (a list of objects, or one object a line).

    Raises:
        BadInput: the file cannot be had, is not well formed, or lacks a column.
    """
    text, where = _text(source)
    if source.path.endswith((".csv", ".tsv")):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if source.path.endswith(".tsv") else ",")
        rows = list(reader)
    else:
        rows = _objects(text, where)
    for i, row in enumerate(rows):
        missing = [column for column in source.columns if row.get(column) is None]
        if missing:
            raise BadInput(f"{where}, row {i + 1} of {len(rows)}: no {missing[0]!r}. Is it {source}?")
    return _check_row_count(source, rows, where)


def read_lines(source: DataSource) -> list[str]:
    """The lines of a text file, without empty ones at its end."""
    text, where = _text(source)
    return _check_row_count(source, text.rstrip("\n").split("\n"), where)


def read_samples(source: DataSource) -> dict[str, Any]:
    """One JSON object; its `samples` are what is counted."""
    text, where = _text(source)
    try:
        made: dict[str, Any] = json.loads(text)
    except ValueError as fault:
        raise BadInput(f"{where} is no valid JSON ({fault}). Is it {source}?") from None
    missing = [key for key in source.columns if key not in made]
    if missing:
        raise BadInput(f"{where} has no {missing[0]!r}. Is it {source}?")
    _check_row_count(source, made["samples"], where)
    return made


def read_content(source: DataSource) -> tuple[bytes, str]:
    """The file's bytes, unpacked if they are gzip, and where they were read."""
    path = _local(source) or _fetch(source)
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw, str(path)
    try:
        return gzip.decompress(raw), str(path)
    except (OSError, EOFError, zlib.error):
        raise BadInput(f"{path} is damaged: its gzip data do not match their checksum. Fetch it again.") from None


def _text(source: DataSource) -> tuple[str, str]:
    raw, where = read_content(source)
    try:
        return raw.decode("utf-8-sig"), where
    except UnicodeDecodeError as fault:
        raise BadInput(f"{where} is not UTF-8 text (byte {fault.start + 1}). Is it {source}?") from None


def _objects(text: str, where: str) -> list[dict[str, Any]]:
    # Some repositories call a JSON list .jsonl: what counts is how it begins.
    try:
        made = json.loads(text) if text.lstrip()[:1] == "[" else [json.loads(x) for x in text.split("\n") if x.strip()]
    except ValueError as fault:
        raise BadInput(f"{where} is no valid JSON ({fault}). Fetch it again.") from None
    if not all(isinstance(row, dict) for row in made):
        raise BadInput(f"{where} holds other things than JSON objects. Fetch it again.")
    return list(made)


def _check_row_count(source: DataSource, rows: list[_T], where: str) -> list[_T]:
    if not rows or rows == [""]:
        raise BadInput(f"{where} is empty. Is it {source}?")
    if source.rows is not None and not os.environ.get("ONTOGENY_DATA") and len(rows) != source.rows:
        raise BadInput(f"{where} has {len(rows)} rows, and {source} has {source.rows}. Delete it and fetch it again.")
    return rows


def _local(source: DataSource) -> Path | None:
    """The file in the folder that ONTOGENY_DATA names; None where the variable is not set."""
    if not (named := os.environ.get("ONTOGENY_DATA")):
        return None
    path = Path(named).expanduser() / source.file
    found = next((p for p in (path, path.with_name(path.name.removesuffix(".gz"))) if p.is_file()), None)
    if found is None:
        raise BadInput(
            f"ONTOGENY_DATA is {named}, and {source.file} is not there. Put {source} there, or unset ONTOGENY_DATA to fetch it."
        )
    return found


def _fetch(source: DataSource) -> Path:
    import pooch

    wanted = f"wanted {source.file} from {source.url}"
    elsewhere = "or set ONTOGENY_DATA to a folder that holds it"
    if source.path.endswith("/"):
        raise BadInput(f"{wanted}, which is a folder of archives and cannot be fetched as one file: set ONTOGENY_DATA.")
    try:
        found = pooch.retrieve(
            source.url,
            known_hash=source.sha256 and f"sha256:{source.sha256}",
            fname=f"{source.commit[:12]}-{Path(source.path).name}",
            path=Path(pooch.os_cache("ontogeny")) / "data" / Path(source.file).parent,
            downloader=_download,
        )
    except ValueError:
        raise BadInput(
            f"{wanted}, and got another file: its sha256 is not {source.sha256}. It was not kept; try again, {elsewhere}."
        ) from None
    except OSError as fault:
        raise BadInput(
            f"{wanted}, which cannot be fetched ({type(fault).__name__}). Connect to the network once, {elsewhere}."
        ) from None
    return Path(found)


def _download(url: str, output_file: str, _: Any) -> None:
    """What pooch calls; its own downloader neither waits out a busy server nor closes a refused answer."""
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    patience = Retry(total=3, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504))
    with Session() as session:
        session.mount(GITHUB_RAW_URL, HTTPAdapter(max_retries=patience))
        with session.get(url, timeout=30, stream=True) as answer:
            answer.raise_for_status()
            with open(output_file, "wb") as file:
                for part in answer.iter_content(1 << 16):
                    file.write(part)
