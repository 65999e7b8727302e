"""Files of a run: written whole or not at all, and readable by DuckDB in any folder."""

import errno
import itertools
import math
import os
import signal
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.records import RECORD_COLUMNS, Record
from ontogeny.storage.files import (
    atomic_path,
    connect_records,
    content_digest,
    disk_errors,
    read_tensor_header,
    read_tensors,
    write_json,
    write_records,
    write_tensors,
)

json_able = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(json_able, json_able)
def test_digests_are_equal_iff_contents_are(a, b) -> None:
    assert content_digest(a) == content_digest(a)
    assert len(content_digest(a)) == 16
    # True == 1 in Python, but not in JSON.
    assert (content_digest(a) == content_digest(b)) == (repr_of(a) == repr_of(b))


def repr_of(content) -> str:
    """Content with dictionaries in the order of their keys."""
    if isinstance(content, dict):
        return "{" + ",".join(f"{k!r}:{repr_of(v)}" for k, v in sorted(content.items())) + "}"
    return "[" + ",".join(map(repr_of, content)) + "]" if isinstance(content, list) else repr(content)


def test_atomic_path_writes_whole_file_or_none(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent  # else the rename could cross file systems
    assert target.read_text() == "half"

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("other")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        fail()
    assert target.read_text() == "half"
    assert os.listdir(target.parent) == ["file.txt"]


def test_files_follow_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    write_json(tmp_path / "a.json", {})
    write_records(tmp_path / "a.parquet", [])
    write_tensors(tmp_path / "a.safetensors", {"x": torch.ones(2)}, {})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full. Free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission denied. Set `out` to another folder"),
        (errno.EROFS, "the file system is read-only"),
        (errno.ENOTDIR, "a part of the path is a file"),
    ],
)
def test_disk_errors_are_one_line(code: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught, atomic_path(tmp_path / "file"):
        raise OSError(code, os.strerror(code))
    assert words in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ValueError, match="No space left on device"), disk_errors(Path("x")):
        raise ValueError(os.strerror(errno.ENOSPC))  # not said by what writes files
    with pytest.raises(TimeoutError), disk_errors(Path("x")):
        raise TimeoutError(errno.ETIMEDOUT, "late")


FULL = Record(
    metric="auroc",
    value=0.75,
    lineage="it's [b]",
    stage="pretrain",
    step=2**40,
    tokens=6.3e9,
    revision="step1",
    train_seed=0,
    concept='"quoted", and more\n',
    site="head.3.5",
    layer=3,
    head=5,
    position="last",
    method="logistic",
    control="leace",
    split="test",
    low=0.7,
    high=math.inf,
    n=10,
    seed=1,
    note="ünï → ✓",
    unit="abc",
    coords={"other_step": "7", "form": "half"},
)
BARE = Record(metric="r2", value=math.nan, note="nothing to see")


def parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


@pytest.mark.parametrize("name", ["plain", "it's", "[b]odd* name?", "ünï"])
def test_records_round_trip(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    for i, record in enumerate((FULL, BARE)):
        write_records(folder / f"{i}.parquet", [record])
    write_records(folder / "empty.parquet", [])
    with connect_records({"one": parts_in(folder)}) as connection:
        found = connection.execute("select * from records order by metric").fetchall()
        names = [column[0] for column in connection.description]
        kinds = dict(connection.execute("select column_name, column_type from (describe records)").fetchall())
    assert names == [*RECORD_COLUMNS, "run"]
    assert {column: kinds[column] for column in RECORD_COLUMNS} == dict(RECORD_COLUMNS)
    full, bare = (dict(zip(names, row, strict=True)) for row in found)
    assert full == {**asdict(FULL), "coords": {"other_step": "7", "form": "half"}, "run": "one"}
    # What could not be measured is null in SQL, so that max() and avg() pass over it, and NaN in a data frame.
    told = {column for column, value in bare.items() if value is not None}
    assert told == {"metric", "n", "note", "coords", "run"}
    assert bare["coords"] == {}
    with connect_records({"one": parts_in(folder)}) as connection:
        frame = connection.execute("select * from records").df().set_index("metric")
    assert math.isnan(frame.value["r2"])
    assert frame.value["auroc"] == 0.75


def test_folder_without_parts_is_empty_table(tmp_path: Path) -> None:
    write_records(tmp_path / "a" / "part.parquet", [FULL])
    with connect_records({"a": parts_in(tmp_path / "a"), "b": parts_in(tmp_path / "none")}) as connection:
        assert connection.execute("select run, count(*) from records group by run").fetchall() == [("a", 1)]
    with connect_records({"b": parts_in(tmp_path / "none")}) as connection:
        assert connection.execute("select * from records where metric = 'auroc' and step > 3").fetchall() == []


def test_temporary_files_are_ignored(tmp_path: Path) -> None:
    write_records(tmp_path / "part.parquet", [FULL])
    (tmp_path / ".part2.parquet.1-2.tmp").write_bytes(b"half written by a job that was killed")
    with connect_records({"a": parts_in(tmp_path)}) as connection:
        assert connection.execute("select count(*) from records").fetchall() == [(1,)]


def test_tensors_and_header_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor([True])}
    write_tensors(tmp_path / "x.safetensors", tensors, {"sites": ["resid.0"], "step": None, "note": "ü"})
    assert read_tensor_header(tmp_path / "x.safetensors") == {"sites": ["resid.0"], "step": None, "note": "ü"}
    found = read_tensors(tmp_path / "x.safetensors")
    assert set(found) == {"a", "b"}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert set(read_tensors(tmp_path / "x.safetensors", ["a"])) == {"a"}


def test_a_notebook_without_widgets_can_use_the_database() -> None:
    """In its kernel DuckDB has no progress bar and raises when it is to be changed."""
    import duckdb

    from ontogeny.storage.files import hide_progress_bar

    class Kernel:
        said: ClassVar[list[str]] = []

        def execute(self, statement: str) -> None:
            self.said.append(statement)
            raise duckdb.InvalidInputException("required package 'ipywidgets' is missing")

    hide_progress_bar(Kernel())
    assert Kernel.said == ["set enable_progress_bar_print = false"]
    with duckdb.connect() as connection:
        hide_progress_bar(connection)
        (shown,) = connection.execute("select current_setting('enable_progress_bar_print')").fetchone()  # type: ignore[misc]
    assert shown is False


@pytest.mark.parametrize("call", range(1, 5))
def test_interrupt_while_rows_are_read_is_an_interrupt(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB reads Python objects while it writes a part; a Ctrl-C raised there would become an error of its own, or end the process."""
    real, calls = pd.Series.__iter__, itertools.count(1)

    def interrupted(self: pd.Series) -> Any:
        if next(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return real(self)

    monkeypatch.setattr(pd.core.base.IndexOpsMixin, "__iter__", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            write_records(tmp_path / "unit.parquet", [Record(lineage="tiny", metric="auroc", value=0.5, n=1)] * 3000)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []
