"""Third-party files of concepts: downloaded once and verified, or read from ONTOGENY_DATA; errors are one line."""

import gzip
import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ontogeny import plugins
from ontogeny.concepts import _film_reviews
from ontogeny.data import download
from ontogeny.data.download import DataSource
from ontogeny.errors import BadInput

TABLE = b"statement,label\nall is well,1\nnothing is,0\n"
GOOD = DataSource(
    "set/good.csv", "who/what", "data/good.csv", "a" * 40, hashlib.sha256(TABLE).hexdigest(), ("statement", "label")
)


class Web:
    """A stand-in for raw.githubusercontent.com, and the cache of what came from it."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.busy = 0
        """How many more requests are answered with 503."""

    def serve(self, source: DataSource, body: bytes) -> DataSource:
        self.files[f"/{source.repository}/{source.commit}/{source.path}"] = body
        return source

    def kept(self) -> list[Path]:
        return [path for path in self.cache.rglob("*") if path.is_file()]


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    made = Web(tmp_path / "cache")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            body = made.files.get(self.path)
            if made.busy:
                made.busy, body, status = made.busy - 1, b"", 503
            else:
                status = 404 if body is None else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setattr(download, "_GITHUB_RAW_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr("pooch.os_cache", lambda name: made.cache / name)
    monkeypatch.delenv("ONTOGENY_DATA", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONTOGENY_DATA", str(tmp_path))
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def fault(source: DataSource) -> str:
    with pytest.raises(BadInput) as caught:
        download.read_rows(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- over the network ----------------------------------------------------------------------------------------------------------


def test_file_is_fetched_once_and_verified(web: Web) -> None:
    web.serve(GOOD, TABLE)
    rows = download.read_rows(GOOD)
    assert rows == [{"statement": "all is well", "label": "1"}, {"statement": "nothing is", "label": "0"}]
    assert download.read_rows(GOOD) == rows
    assert web.asked == [f"/who/what/{'a' * 40}/data/good.csv"]
    [kept] = web.kept()
    assert kept.name == f"{'a' * 12}-good.csv"
    assert kept.parent.name == "set"


def test_damaged_cached_file_is_fetched_again(web: Web) -> None:
    web.serve(GOOD, TABLE)
    download.read_rows(GOOD)
    web.kept()[0].write_bytes(b"statement,label\nall is ill,1\n")
    assert download.read_rows(GOOD)[0]["statement"] == "all is well"
    assert len(web.asked) == 2


def test_rejects_and_deletes_file_with_another_hash(web: Web) -> None:
    web.serve(GOOD, TABLE.replace(b"well", b"ill"))
    told = fault(GOOD)
    assert f"must have the sha256 {GOOD.sha256}, got another file" in told
    assert GOOD.url in told
    assert "ONTOGENY_DATA" in told
    assert web.kept() == []


def test_without_hash_columns_and_rows_are_checked(web: Web) -> None:
    bare = web.serve(replace(GOOD, sha256=None, rows=2), TABLE)
    assert len(download.read_rows(bare)) == 2
    assert "2 rows, but who/what" in fault(replace(bare, rows=3))
    assert "no 'subject'" in fault(replace(bare, columns=("subject",)))


def test_busy_server_is_retried(web: Web) -> None:
    web.serve(GOOD, TABLE)
    web.busy = 2
    assert len(download.read_rows(GOOD)) == 2
    assert len(web.asked) == 3
    web.kept()[0].unlink()
    web.busy = 9
    assert "cannot be fetched (RetryError)" in fault(GOOD)
    assert web.kept() == []


def test_missing_upstream_file_is_a_one_line_error(web: Web) -> None:
    told = fault(GOOD)
    assert "cannot be fetched (HTTPError)" in told
    assert "set/good.csv" in told
    assert "ONTOGENY_DATA" in told


def test_no_network_is_a_one_line_error(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A concept by its name, with an empty cache and no server."""
    monkeypatch.setattr(download, "_GITHUB_RAW_URL", "http://127.0.0.1:9")
    with pytest.raises(BadInput) as caught:
        plugins.load_plugin("concepts", "xstest").concept()
    told = str(caught.value)
    assert "\n" not in told
    assert re.search(
        r"xstest/xstest_prompts.csv from \S+/paul-rottger/exaggerated-safety/d7bb5bd7\w+/xstest_prompts.csv",
        told,
    )
    assert "ConnectionError" in told
    assert "ONTOGENY_DATA" in told


def test_rejects_download_of_a_folder_of_archives(web: Web) -> None:
    with pytest.raises(BadInput, match=r"talktuner.*folder of archives.*set ONTOGENY_DATA"):
        plugins.load_plugin("concepts", "user_age").concept()
    assert web.asked == []


# --- from a folder -------------------------------------------------------------------------------------------------------------


def test_local_folder_is_read_without_hash_check(local: Path) -> None:
    (local / "good.csv").write_text("statement,label\na subset,1\n")
    assert download.read_rows(GOOD) == [{"statement": "a subset", "label": "1"}]
    assert (
        download.cite_sources(GOOD, paper="arXiv:1")
        == "who/what/data/good.csv @ aaaaaaaaaaaa (arXiv:1); read from ONTOGENY_DATA"
    )


def test_missing_local_file_is_not_downloaded(web: Web, local: Path) -> None:
    web.serve(GOOD, TABLE)
    told = fault(GOOD)
    assert "set/good.csv is not there" in told
    assert "who/what/data/good.csv @ aaaaaaaaaaaa" in told
    assert "unset ONTOGENY_DATA" in told
    assert web.asked == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"text,label\nx,1\n", "no 'statement'"),
        (b"statement,label\nonly one cell\n", "no 'label'"),
        (b"statement,label\n", "is empty"),
        (b"statement,label\n\xff,1\n", "must be UTF-8"),
        (gzip.compress(TABLE, mtime=0)[:-9], "damaged"),
    ],
)
def test_rejects_invalid_local_file(local: Path, body: bytes, words: str) -> None:
    (local / "good.csv").write_bytes(body)
    assert words in fault(GOOD)


def test_local_file_may_be_uncompressed(local: Path) -> None:
    source = replace(GOOD, file="set/good.csv.gz")
    (local / "good.csv").write_bytes(TABLE)
    assert len(download.read_rows(source)) == 2
    (local / "good.csv.gz").write_bytes(gzip.compress(TABLE.replace(b"0", b"1")))
    assert {row["label"] for row in download.read_rows(source)} == {"1"}


@pytest.mark.parametrize("text", ['[{"statement": "a", "label": 1}]', '{"statement": "a", "label": 1}\n\n'])
def test_jsonl_may_contain_a_json_list(local: Path, text: str) -> None:
    source = replace(GOOD, file="set/good.jsonl", path="good.jsonl")
    (local / "good.jsonl").write_text(text)
    assert download.read_rows(source) == [{"statement": "a", "label": 1}]
    for bad in ("[1, 2]", '{"statement": '):
        (local / "good.jsonl").write_text(bad)
        assert "JSON" in fault(source)


def test_document_needs_its_keys_and_samples(local: Path) -> None:
    source = DataSource("set/r.json", "who/what", "r.json", "b" * 12, None, ("prompt_templates", "samples"), 2)
    (local / "r.json").write_text(
        json.dumps({"prompt_templates": ["{}"], "samples": [{"subject": "a", "object": "b"}]})
    )
    assert download.read_samples(source)["samples"] == [{"subject": "a", "object": "b"}]
    for text, words in (("{", "JSON"), ('{"samples": []}', "no 'prompt_templates'")):
        (local / "r.json").write_text(text)
        with pytest.raises(BadInput, match=words):
            download.read_samples(source)


def test_film_reviews_are_read_from_archive_or_table(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream archive has one file per polarity; a local table has both."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("sentence_polarity/rt-polarity.neg", "dull .\nslow .\n")
        archive.writestr("sentence_polarity/rt-polarity.pos", "bright .\n")
    source = replace(_film_reviews.FILM_REVIEWS_SOURCE, sha256=hashlib.sha256(packed.getvalue()).hexdigest())
    monkeypatch.setattr(_film_reviews, "FILM_REVIEWS_SOURCE", web.serve(source, packed.getvalue()))
    fetched = _film_reviews.film_review_sentences()
    assert fetched == [("dull .", False), ("slow .", False), ("bright .", True)]
    monkeypatch.setenv("ONTOGENY_DATA", str(tmp_path))
    table = tmp_path / source.file
    table.parent.mkdir()
    table.write_bytes(gzip.compress(b"statement,label\ndull .,0\nslow .,0\nbright .,1\n", mtime=0))
    assert _film_reviews.film_review_sentences() == fetched
    table.write_bytes(b"text,mood\ndull .,0\n")
    with pytest.raises(BadInput, match="must contain sentences with a polarity"):
        _film_reviews.film_review_sentences()
