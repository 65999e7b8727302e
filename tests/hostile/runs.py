"""What a job leaves behind, damaged or foreign: run directories, raised models; and SQL that does more than ask."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import torch
from safetensors.torch import save_file

from tests.hostile.making import DEEP, Case


def alone(run: Path) -> None:
    """Leave nothing from which a damaged run.json could be read."""
    (run / "run.json.bak").unlink()
    shutil.rmtree(run / "records")


def about(change: Callable[[Path], None]) -> Case:
    def make(place: Path) -> list[object]:
        alone(place / "run")
        change(place / "run" / "run.json")
        return ["report", place / "run"]

    return make


def part(content: bytes) -> Case:
    def make(place: Path) -> list[object]:
        (place / "run" / "records" / "evil.parquet").write_bytes(content)
        return ["query", place / "run", "select 1 from records"]

    return make


def query(sql: str) -> Case:
    return lambda place: ["query", place / "run", sql]


def grown(change: Callable[[Path], None]) -> Case:
    """A trace into the run after a change of its run.json."""

    def make(place: Path) -> list[object]:
        alone(place / "run")
        change(place / "run" / "run.json")
        return ["trace", place / "model", "-c", place / "planted.csv", "-o", place / "run"]

    return make


def watched(change: Callable[[Path], None]) -> Case:
    """`monitor` after a change of the run's directions."""

    def make(place: Path) -> list[object]:
        for path in (place / "run" / "directions").glob("*.safetensors"):
            change(path)
        return ["monitor", place / "run"]

    return make


def told_as(path: Path, header: object) -> None:
    save_file({"a": torch.ones(1)}, path, metadata={"ontogeny": json.dumps(header)})


def other_part(place: Path) -> list[object]:
    part = place / "run" / "records" / "evil.parquet"
    duckdb.execute(f"copy (select 1 as x) to '{part}' (format parquet)")
    return ["query", place / "run", "select metric from records where value > 2"]


def report_linked(place: Path) -> list[object]:
    """A report through a link to a part of the run."""
    (place / "link").symlink_to(place / "run" / "ledger.jsonl")
    return ["report", place / "run", "-o", place / "link"]


def raised(content: str) -> Case:
    def make(place: Path) -> list[object]:
        (place / "raised").mkdir()
        (place / "raised" / "raising.json").write_text(content)
        return ["train", "--check", "--out", place / "raised"]

    return make


CASES: dict[str, tuple[Case, str]] = {
    "no run": (lambda p: ["report", p / "model"], r"is not a run directory"),
    "run.json torn": (about(lambda f: f.write_text(f.read_text()[:50]) and None), r"run\.json cannot be read"),
    "run.json empty": (about(lambda f: f.write_text("") and None), r"run\.json cannot be read"),
    "run.json a list": (about(lambda f: f.write_text("[1]") and None), r"run\.json cannot be read"),
    "run.json binary": (about(lambda f: f.write_bytes(b"\xff\xfe\x00") and None), r"run\.json cannot be read"),
    "run.json nested": (about(lambda f: f.write_text(DEEP) and None), r"run\.json cannot be read"),
    "a part of nothing": (part(b""), r"records cannot be read.*evil|evil.* is damaged"),
    "a part of noise": (part(os.urandom(64)), r"records cannot be read.*evil|evil.* is damaged"),
    "a part cut off": (part(b"PAR1" + b"\0" * 40), r"records cannot be read.*evil|evil.* is damaged"),
    "no SQL": (lambda p: ["query", p / "run"], r"a query needs a run directory and SQL"),
    "wrong SQL": (query("selec 1"), r"the query cannot be run"),
    "no such column": (query("select colour from records"), r"the query cannot be run"),
    "no such format": (lambda p: ["query", p / "run", "select 1", "-f", "xml"], r"--format must be one of table"),
    "a run twice": (
        lambda p: ["query", p / "run", p / "run", "select 1"],
        r"each run must be named once, got .* twice",
    ),
    "view": (lambda p: ["show", p / "run", "emergense"], r"did you mean emergence"),
    "view up": (lambda p: ["show", p / "run", "../../evil"], r"no view called '\.\./\.\./evil'"),
    "picture ending": (lambda p: ["show", p / "run", "emergence", "-o", p / "a.exe"], r"\.exe"),
    "report on a folder": (lambda p: ["report", p / "run", "-o", p / "model"], r"cannot write"),
    "report on run.json": (lambda p: ["report", p / "run", "-o", p / "run/run.json"], r"--out must not be a part of"),
    "report on a part": (lambda p: ["report", p / "run", "-o", p / "run/records/x"], r"--out must not be a part of"),
    "report on another run": (report_linked, r"--out must not be a part of"),
    "picture on run.json": (
        lambda p: ["show", p / "run", "emergence", "-o", p / "model/../run/run.json"],
        r"--out must not be a part of",
    ),
    "picture among the directions": (
        lambda p: ["show", p / "run", "emergence", "-o", p / "run/directions/new/x.png"],
        r"--out must not be a part of",
    ),
    "report nowhere": (lambda p: ["report", p / "run", "-o", "/proc/none/x.html"], r"cannot write /proc/none/x\.html"),
    "picture nowhere": (
        lambda p: ["show", p / "run", "emergence", "-o", "/proc/none/x.png"],
        r"cannot write /proc/none",
    ),
    "report below a file": (
        lambda p: ["report", p / "run", "-o", p / "planted.csv/x.html"],
        r"a part of the path is a file",
    ),
    "trace below a file": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", p / "planted.csv/out"],
        r"a part of the path is a file",
    ),
    "trace nowhere": (
        lambda p: ["trace", p / "model", "-c", p / "planted.csv", "-o", "/proc/none/x"],
        r"cannot write /proc/none/x",
    ),
    "report on a full disk": (lambda p: ["report", p / "run", "-o", "/dev/full"], r"the disk is full"),
    "no view": (lambda p: ["show", p / "run"], r"a picture needs a run directory and a view"),
    "run.json without a lineage": (
        about(lambda f: f.write_text('{"lineage": null}') and None),
        r"'lineage' is not a dict",
    ),
    "run.json concepts a number": (
        about(lambda f: f.write_text('{"concepts": 3}') and None),
        r"'concepts' is not a list",
    ),
    "run.json concepts unnamed": (
        about(lambda f: f.write_text('{"concepts": [{}]}') and None),
        r"concepts have no names",
    ),
    "a run that does not say of what": (
        grown(lambda f: f.write_text("{}") and None),
        r"does not say what was measured",
    ),
    "directions cut off": (
        watched(lambda f: f.write_bytes(f.read_bytes()[:90]) and None),
        r"is damaged .* trace again",
    ),
    "directions of somebody": (watched(lambda f: save_file({"a": torch.ones(1)}, f)), r"is damaged"),
    "directions that say nothing": (watched(lambda f: told_as(f, {})), r"is damaged"),
    "directions with a list on top": (watched(lambda f: told_as(f, [])), r"is damaged"),
    "a part of another table": (other_part, r"the records cannot be read|the query cannot be run"),
    "SQL that writes": (query("copy (select 1) to 'pwned'"), r"one statement that changes nothing"),
    "SQL that writes later": (query("select 1; copy (select 1) to 'pwned'"), r"one statement that changes nothing"),
    "SQL that exports": (query("export database 'pwned'"), r"one statement that changes nothing"),
    "SQL that attaches": (query("attach 'pwned.db'"), r"one statement that changes nothing"),
    "SQL that installs": (query("install httpfs"), r"one statement that changes nothing"),
    "SQL that writes in a CTE": (
        query("with a as (copy (select 1) to 'notes.txt') select * from a"),
        r"one statement that changes nothing",
    ),
    "SQL that writes in a CTE over a part": (
        query("with a as (/* */ CoPy (select 1) to 'run/records/x.parquet') select * from a"),
        r"one statement that changes nothing",
    ),
    "SQL that writes in a text": (
        query("from query('with a as (copy (select 1) to ''run/records/x'') from a')"),
        r"the query cannot be run",
    ),
    "SQL that reads a table": (query("select * from read_csv('planted.csv')"), r"the query cannot be run"),
    "SQL that reads a text": (query("select * from read_text('/etc/passwd')"), r"the query cannot be run"),
    "SQL that reads above": (query("from read_text('run/records/../run.json')"), r"the query cannot be run"),
    "SQL that reads a file by its name": (query("from 'planted.csv'"), r"the query cannot be run"),
    "SQL that lists files": (query("from glob('/etc/*')"), r"the query cannot be run"),
    "SQL that reads a variable": (query("from frame"), r"the query cannot be run"),
    "SQL that is a pragma": (query("pragma database_list"), r"one statement that changes nothing"),
    "SQL that sets": (query("set lock_configuration = false"), r"one statement that changes nothing"),
    "SQL that loads": (query("load httpfs"), r"one statement that changes nothing"),
    "SQL that asks nothing": (query("/* nothing */"), r"one statement that changes nothing"),
    "SQL nested": (query("select " + "(" * 5000 + "1" + ")" * 5000), r"the query cannot be run"),
    "rate that is none": (lambda p: ["monitor", p / "run", "--fpr", "nan"], r"--fpr must lie between 0 and 1, got nan"),
    "stage that is none": (
        lambda p: ["monitor", p / "run", "-c", p / "planted.csv", "--frozen", ":"],
        r"no stage called ''",
    ),
    "audit of a run": (lambda p: ["audit", p / "run"], r"holds no model"),
    "raised by nobody": (raised("{"), r"raising\.json cannot be read"),
    "raised as a list": (raised("[]"), r"raising\.json cannot be read \(a list"),
    "raised in no world": (raised('{"world": "../x", "size": "small"}'), r"no world called '\.\./x'"),
}
