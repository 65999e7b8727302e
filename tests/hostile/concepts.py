"""Concept files that are torn, nested, huge, endless, or hold what no text can hold."""

import gzip
import json
import os
from pathlib import Path

from tests.hostile.making import DEEP, Case


def concept(content: str | bytes, name: str = "bad.csv") -> Case:
    def make(place: Path) -> list[object]:
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return ["trace", place / "model", "-c", place / name, "-o", place / "out"]

    return make


def named(name: str) -> Case:
    return lambda place: ["trace", place / "model", "-c", name, "-o", place / "out"]


def endless(place: Path) -> list[object]:
    os.mkfifo(place / "pipe.csv")
    return named(str(place / "pipe.csv"))(place)


def device(place: Path) -> list[object]:
    (place / "zero.csv").symlink_to("/dev/zero")
    return named(str(place / "zero.csv"))(place)


CASES: dict[str, tuple[Case, str]] = {
    "jsonl nested": (concept('{"text": ' + DEEP, "bad.jsonl"), r"line 1: invalid JSON"),
    "jsonl list": (concept("[1]\n", "bad.jsonl"), r"must be an object"),
    "jsonl text in text": (concept('{"text": {"a": 1}, "label": 1}\n' * 20, "bad.jsonl"), r"text"),
    "jsonl doubled key": (concept('{"text": "a", "text": "b", "label": 1}\n', "bad.jsonl"), r"a key is repeated"),
    "gzip cut": (concept(b"\x1f\x8b\x08\0\0\0", "bad.csv.gz"), r"damaged"),
    "no text": (concept("text,label\n,1\n,0\n"), r"text"),
    "huge cell": (concept("text,label\n" + "a" * 200_000 + ",1\n"), r"texts are equal"),
    "doubled column": (concept("text,text,label\na,b,1\n"), r"text"),
    "spans outside": (concept("text,label,span_start,span_end\n" + "abc,1,5,9\nabd,0,5,9\n" * 10), r"span"),
    "number as infinity": (concept("text,target\n" + "".join(f"t{i},inf\n" for i in range(20))), r"."),
    "concept that never ends": (endless, r"must be a regular file"),
    "concept without end": (device, r"must be a regular file"),
    "concept of too long a name": (named("x" * 400 + ".csv"), r"is too long for a file"),
    "jsonl lone surrogate": (
        concept("".join(json.dumps({"text": f"a\ud800 {i}", "label": i % 2}) + "\n" for i in range(40)), "bad.jsonl"),
        r"lone surrogate",
    ),
    "jsonl number without end": (
        concept('{"text": "a", "label": 1' + "0" * 6000 + "}\n", "bad.jsonl"),
        r"line 1: invalid JSON",
    ),
    "parquet cut": (concept(b"PAR1\0\0\0", "bad.parquet"), r"cannot be read as Parquet"),
    "json nested": (concept("[" + DEEP, "bad.json"), r"invalid JSON"),
    "json of numbers": (concept("[1, 2]", "bad.json"), r"row 1: must be an object"),
    "chat nested": (concept('text,messages,label\n1,"' + "[" * 100_000 + '",1\n'), r"."),
    "chat in text": (concept('messages,label\n"' + "[" * 100_000 + '",1\n'), r"a chat must be a list of turns"),
    "chat of numbers": (
        concept('{"messages": [1], "label": 1}\n' * 20, "bad.jsonl"),
        r"a chat must be a list of turns",
    ),
    "half of UTF-16": (concept(b"\xff\xfet\0e\0x"), r"must be UTF-8 text"),
    "delimiter of its own": (concept("sep=,\n"), r"is empty"),
    "data set without the library": (named("nobody/nothing"), r"there is no file nobody/nothing|cannot be read"),
    "gzip in gzip": (concept(gzip.compress(gzip.compress(b"text,label\na,1\n")), "bad.csv.gz"), r"must be UTF-8 text"),
}
