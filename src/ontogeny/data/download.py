"""Third-party data files, identified by repository, path, commit and sha256; pooch downloads them once into the user's cache.

The environment variable `ONTOGENY_DATA` names a local folder to read instead. Its files may be subsets, so they are checked for their
columns, not for the upstream hash. A file of unknown hash is checked for its columns and its number of rows.
"""

import csv
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ontogeny.data.tables import gunzip
from ontogeny.errors import BadInput

_T = TypeVar("_T")

_GITHUB_RAW_URL = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class DataSource:
    """One file of a public repository."""

    file: str
    """Path in the folder that ONTOGENY_DATA names."""
    repository: str
    path: str
    """Path in the repository; a path ending in / is a folder of archives, which cannot be fetched as one file."""
    commit: str
    sha256: str | None
    """Hash of the upstream file; None if unknown."""
    columns: tuple[str, ...] = ()
    """Required columns, or keys of a JSON document."""
    rows: int | None = None
    """Number of rows, stated if there is no hash."""

    @property
    def url(self) -> str:
        return f"{_GITHUB_RAW_URL}/{self.repository}/{self.commit}/{self.path}"

    def __str__(self) -> str:
        return f"{self.repository}/{self.path} @ {self.commit[:12]}"


def cite_sources(*sources: DataSource, paper: str) -> str:
    """The text of `Concept.source`: repositories, commits and paper."""
    places = sorted({f"{s.repository} @ {s.commit[:12]}" for s in sources}) if len(sources) > 2 else map(str, sources)
    read_from = "; read from ONTOGENY_DATA" if os.environ.get("ONTOGENY_DATA") else ""
    return f"{'; '.join(places)} ({paper}){read_from}"


def read_rows(source: DataSource) -> list[dict[str, Any]]:
    """Rows of a CSV, TSV or JSON file (a list of objects, or one object per line).

    Raises:
        BadInput: the file cannot be read, is malformed, or lacks a column.
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
            raise BadInput(f"{where}, row {i + 1} of {len(rows)}: no {missing[0]!r}: check that it is {source}.")
    return _check_row_count(source, rows, where)


def read_lines(source: DataSource) -> list[str]:
    """Lines of a text file, without empty lines at the end."""
    text, where = _text(source)
    return _check_row_count(source, text.rstrip("\n").split("\n"), where)


def read_samples(source: DataSource) -> dict[str, Any]:
    """A JSON object; the entries of its `samples` count as rows."""
    text, where = _text(source)
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where} is not valid JSON ({error}): check that it is {source}.") from None
    missing = [key for key in source.columns if key not in document]
    if missing:
        raise BadInput(f"{where} has no {missing[0]!r}: check that it is {source}.")
    _check_row_count(source, document["samples"], where)
    return document


def read_content(source: DataSource) -> tuple[bytes, str]:
    """Uncompressed content of the file, and its path."""
    path = _local(source) or _fetch(source)
    return gunzip(path.read_bytes(), str(path)), str(path)


def _text(source: DataSource) -> tuple[str, str]:
    raw, where = read_content(source)
    try:
        return raw.decode("utf-8-sig"), where
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{where} must be UTF-8 text (byte {error.start + 1} is not): check that it is {source}."
        ) from None


def _objects(text: str, where: str) -> list[dict[str, Any]]:
    # Some repositories name a JSON list .jsonl, so the first character decides.
    try:
        rows = json.loads(text) if text.lstrip()[:1] == "[" else [json.loads(x) for x in text.split("\n") if x.strip()]
    except ValueError as error:
        raise BadInput(f"{where} is not valid JSON ({error}): fetch it again.") from None
    if not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{where} must contain only JSON objects: fetch it again.")
    return list(rows)


def _check_row_count(source: DataSource, rows: list[_T], where: str) -> list[_T]:
    if not rows or rows == [""]:
        raise BadInput(f"{where} is empty: check that it is {source}.")
    if source.rows is not None and not os.environ.get("ONTOGENY_DATA") and len(rows) != source.rows:
        raise BadInput(f"{where} has {len(rows)} rows, but {source} has {source.rows}: delete it and fetch it again.")
    return rows


def _local(source: DataSource) -> Path | None:
    """The file in the folder that ONTOGENY_DATA names; None if the variable is unset."""
    if not (folder := os.environ.get("ONTOGENY_DATA")):
        return None
    path = Path(folder).expanduser() / source.file
    for candidate in (path, path.with_name(path.name.removesuffix(".gz"))):
        if candidate.is_file():
            return candidate
    raise BadInput(
        f"ONTOGENY_DATA is {folder}, but {source.file} is not there: put {source} there, or unset ONTOGENY_DATA to fetch it."
    )


def _fetch(source: DataSource) -> Path:
    import pooch

    subject = f"{source.file} from {source.url}"
    elsewhere = "or set ONTOGENY_DATA to a folder that contains it"
    if source.path.endswith("/"):
        raise BadInput(f"{subject} is a folder of archives and cannot be fetched as one file: set ONTOGENY_DATA.")
    try:
        path = pooch.retrieve(
            source.url,
            known_hash=source.sha256 and f"sha256:{source.sha256}",
            fname=f"{source.commit[:12]}-{Path(source.path).name}",
            path=Path(pooch.os_cache("ontogeny")) / "data" / Path(source.file).parent,
            downloader=_download,
        )
    except ValueError:
        raise BadInput(
            f"{subject} must have the sha256 {source.sha256}, got another file, which was not kept: try again, {elsewhere}."
        ) from None
    except OSError as error:
        raise BadInput(
            f"{subject} cannot be fetched ({type(error).__name__}): connect to the network once, {elsewhere}."
        ) from None
    return Path(path)


def _download(url: str, output_file: str, _: Any) -> None:
    """Downloader for pooch with retries; pooch's own does not retry, and leaves a refused response open."""
    from requests import Session
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    retry = Retry(total=3, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504))
    with Session() as session:
        session.mount(_GITHUB_RAW_URL, HTTPAdapter(max_retries=retry))
        with session.get(url, timeout=30, stream=True) as response:
            response.raise_for_status()
            with open(output_file, "wb") as file:
                for part in response.iter_content(1 << 16):
                    file.write(part)
