"""Concept files: formats, columns, labels, and one-line errors for invalid files."""

import gzip
import json
from pathlib import Path

import pytest

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput


def csv(*rows: str, header: str = "text,label", n: int = 24) -> bytes:
    """A good file of n rows, with `rows` behind it."""
    width = header.count(",") - 1
    good = [f"some text {i},{i % 2}" + ",a" * width for i in range(n)]
    return ("\n".join([header, *good, *rows]) + "\n").encode()


def write(folder: Path, data: bytes, name: str = "truth.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def labelled(folder: Path, labels: list[object], name: str = "truth.jsonl", **more: object) -> Path:
    lines = [json.dumps({"text": f"some text {i}", "label": label, **more}) for i, label in enumerate(labels)]
    return write(folder, "\n".join(lines).encode(), name)


def test_all_formats_give_the_same_concept(tmp_path: Path) -> None:
    plain = Concept.from_file(write(tmp_path, csv()))
    rows = [{"statement": f"some text {i}", "target": bool(i % 2)} for i in range(24)]
    others = [
        write(tmp_path, csv().replace(b",", b"\t"), "truth.tsv"),
        write(tmp_path, gzip.compress(csv()), "truth.csv.gz"),
        write(tmp_path, b"\xef\xbb\xbf" + csv().replace(b"\n", b"\r\n"), "bom.csv"),
        write(tmp_path, "\n\n".join(map(json.dumps, rows)).encode(), "truth.jsonl"),
    ]
    assert {Concept.from_file(path).hash for path in others} == {plain.hash}
    assert [Concept.from_file(path).name for path in others] == ["truth", "truth", "bom", "truth"]
    assert plain.name == "truth"


def test_all_columns_are_read(tmp_path: Path) -> None:
    rows = [
        {
            "text": f"The city {i} is large.", "label": ["no", "yes"][i % 2],
            "group": i // 2, "pair": i // 2, "span": f"city {i}", "type": "city",
            "position": "last:span", "prompt": f"City {i // 2} is", "right": " large", "wrong": " small",
        }
        for i in range(24)
    ]  # fmt: skip
    made = Concept.from_file(
        write(tmp_path, "\n".join(map(json.dumps, rows)).encode(), "size.jsonl"), sign=-1, licence="MIT", template=True
    )
    assert made.kind == "binary"
    assert made.classes == ()
    assert made.labels().tolist() == [False, True] * 12
    assert made.group_ids().tolist() == made.pair_ids().tolist() == [i // 2 for i in range(24)]
    assert made.examples[3].span == (4, 10)
    assert made.examples[3].type == "city"
    assert str(made.position) == "last:span"
    assert (made.sign, made.licence, made.template) == (-1, "MIT", True)
    assert made.answers[0] == Answer("City 0 is", " large", " small", "0")
    assert len(made.answers) == 12  # each question once


def test_limit_and_other_column_names(tmp_path: Path) -> None:
    path = write(tmp_path, csv(header="text,label,city", n=60).replace(b"label", b"truth"))
    assert len(Concept.from_file(path, label="truth", limit=30, seed=1).examples) == 30


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        ([0, 1] * 12, "binary", ()),
        ([True, False] * 12, "binary", ()),
        (["No", "yes"] * 12, "binary", ()),
        (["0.0", "1.0"] * 12, "binary", ()),
        (["true", "fictional"] * 12, "binary", ("fictional", "true")),
        ([1, -1] * 12, "binary", ("-1", "1")),
        (["north", "east", "south"] * 8, "classes", ("east", "north", "south")),
        ([3, 1, 2, 10] * 6, "classes", ("1", "2", "3", "10")),
        (list(range(40)), "number", ()),
        ([i / 8 for i in range(24)], "number", ()),
    ],
)
def test_kind_is_inferred_from_labels(
    tmp_path: Path, labels: list[object], kind: str, classes: tuple[str, ...]
) -> None:
    made = Concept.from_file(labelled(tmp_path, labels))
    assert (made.kind, made.classes) == (kind, classes)
    if classes and kind == "binary":
        assert made.labels()[0] == (str(labels[0]) == classes[1])
    if kind == "classes":
        assert [classes[i] for i in made.labels()] == [str(label) for label in labels]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (list(range(24)), "24 different labels like 0 and 1 may be classes or numbers"),
        ([0.25, 0.5, 0.75] * 8, "may be classes or numbers"),
        ([0, 1] * 12 + ["maybe"], "line 25: labels must be all numbers or all words, got 'maybe' beside 0"),
        ([0, 1] * 12 + [None], "line 25: the label is empty"),
        ([0.5 * i for i in range(24)] + [float("nan")], "line 25: the label must be a finite number, got nan"),
        ([0, 1] * 12 + [[1]], "line 25: the label must be one word or number, got a list"),
        ([f"label {i}" for i in range(60)], "at most 50 classes, got 60 labels"),
        (["a", "b"] * 12 + ["c"], "at least 2 examples, to be learned and tested, got 1 of 'c'"),
        (["a"] * 24, "all 24 have the label"),
        ([1] * 24, "all 24 have the label True"),
        (["1", "true"] * 12, "got 'true' beside 1"),
    ],
)
def test_rejects_ambiguous_labels(tmp_path: Path, labels: list[object], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        Concept.from_file(labelled(tmp_path, labels))
    assert "\n" not in str(caught.value)


def test_stated_kind_takes_precedence(tmp_path: Path) -> None:
    assert Concept.from_file(labelled(tmp_path, list(range(24))), kind="number").kind == "number"
    assert Concept.from_file(labelled(tmp_path, list(range(24)), **{"kind": "number"})).kind == "number"
    assert Concept.from_file(labelled(tmp_path, list(range(12)) * 2), kind="classes").classes == tuple(
        map(str, range(12))
    )
    assert (
        Concept.from_file(labelled(tmp_path, [0, 1] * 12, **{"kind": "joke"})).kind == "binary"
    )  # somebody else's column
    with pytest.raises(BadInput, match="binary concept must have two labels, got 3"):
        Concept.from_file(labelled(tmp_path, ["a", "b", "c"] * 8), kind="binary")
    with pytest.raises(BadInput, match="must be numbers, got words"):
        Concept.from_file(labelled(tmp_path, ["a", "b", "c"] * 8), kind="number")


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "x.csv", "is empty"),
        (b"\n \n", "x.jsonl", "is empty"),
        (b"text,label\n", "x.csv", "a header but no rows"),
        (b"\x89PNG\0\0\0" + bytes(range(1, 128)), "x.csv", "must be UTF-8|binary"),
        (b"text,label\n\0,1\n", "x.csv", "binary file"),
        ("text,label\nmañana,1\n".encode("latin-1"), "x.csv", "must be UTF-8 text .byte 14 is not."),
        (csv().decode().encode("utf-16-le"), "x.csv", "must be UTF-8|binary"),
        (gzip.compress(csv(), mtime=0)[:-12], "x.csv.gz", "damaged"),
        (csv(header="text,truth"), "x.csv", "no column 'label' or 'target', only 'text', 'truth'"),
        (csv().replace(b",", b"/"), "x.csv", "no column 'text' or 'statement', only 'text/label'"),
        (csv(header="text,label,label"), "x.csv", "the column 'label' 2 times"),
        (csv(header="text,label,statement"), "x.csv", "both columns 'text' and 'statement'"),
        (csv("one,two,1"), "x.csv", "line 26: 3 cells, but the header has 2 columns"),
        (csv("one"), "x.csv", "line 26: 1 cells"),
        (csv('"left open,1', "more,0"), "x.csv", "line 26.*quote"),
        (csv('"two', 'lines",1', ",1"), "x.csv", "line 28: the text is empty"),
        (csv("one,"), "x.csv", "line 26: the label is empty"),
        (csv(header="text,label,group").replace(b"3,1,a", b"3,1,"), "x.csv", "line 5: the group is empty"),
        (csv(header="text,label,span").replace(b",a", b",some") + b"some and some,1,some\n", "x.csv",
         "line 26: the span 'some' must occur once in the text, got 2 times"),
        (csv(header="text,label,span").replace(b",a", b",none"), "x.csv", "got 0 times"),
        (csv(header="text,label,span_start,span_end").replace(b",a,a", b",2,400"), "x.csv",
         "line 2: the span must lie inside the text of 11 characters, got 2–400"),
        (csv(header="text,label,span_start,span_end"), "x.csv", "must be whole numbers, got 'a' and 'a'"),
        (csv(header="text,label,position"), "x.csv", "no position called 'a'"),
        (csv("other,1,b", header="text,label,position"), "x.csv", "must be the same in all rows"),
        (csv(header="text,label,right"), "x.csv", "add 'prompt'"),
        (csv("other,1,a,b,", header="text,label,prompt,right,wrong").replace(b",a,a,a", b",a,b,c"), "x.csv",
         "line 26: an answer needs prompt, right and wrong"),
        (b'{"text": "a", "label": 1}\n{"text": \n', "x.jsonl", "line 2: invalid JSON"),
        (b'{"text": "a", "text": "b", "label": 1}\n', "x.jsonl", "line 1: .*a key is repeated"),
        (b"[1, 2]\n", "x.jsonl", "line 1: must be an object .* got a list"),
        (b'{"text": 5, "label": 1}\n', "x.jsonl", "line 1: the text must be a string, got 5"),
        (csv(), "x.xlsx", "must end in .csv, .tsv, .jsonl, .json, .parquet, text files plain or .gz, got '.xlsx'"),
        (csv(n=6), "x.csv", "6 groups"),
    ],
)  # fmt: skip
def test_rejects_invalid_files_in_one_line(tmp_path: Path, data: bytes, name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        Concept.from_file(write(tmp_path, data, name))
    assert "\n" not in str(caught.value)


def test_rejects_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file"):
        Concept.from_file(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadInput, match="must be a concept file, got a folder"):
        Concept.from_file(tmp_path / "folder.csv")
    with pytest.raises(BadInput, match="no column 'city', only 'text', 'label'"):
        Concept.from_file(write(tmp_path, csv()), group="city")


def test_line_separators_inside_json_do_not_split_lines(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"one\u2028two {i}", "label": i % 2}, ensure_ascii=False) for i in range(24)]
    assert "\u2028" in Concept.from_file(write(tmp_path, "\n".join(rows).encode(), "x.jsonl")).texts[0]


def test_third_party_files_are_read(shared: Path) -> None:
    hate = Concept.from_file(
        shared / "hatecheck" / "test_suite_cases.csv", text="test_case", label="label_gold", group="templ_id"
    )
    assert hate.classes == ("non-hateful", "hateful")
    toxic = Concept.from_file(shared / "toxigen" / "demonstrations.jsonl")  # has columns named kind and group
    assert (toxic.kind, len(set(toxic.group_ids().tolist()))) == ("binary", 14)
    safe = Concept.from_file(shared / "xstest" / "xstest_prompts.csv", text="prompt", template=True)
    assert (safe.answers, safe.classes) == ((), ("safe", "unsafe"))
