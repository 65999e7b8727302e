"""Files of texts: encodings, empty cells, and cells that are no text."""

import json

import pytest

from ontogeny.cli._arguments import neutral_texts, read_text_lines
from ontogeny.errors import BadInput

TEXTS = ["The little cat", "The big dog"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", "\ufeffThe little cat\r\n\r\nThe big dog\r\n".encode()),
        ("a.txt", "The little cat\nThe big dog".encode("utf-16")),
        ("a.csv", "\ufeffnote;text\na;The little cat\nb;The big dog\n".encode()),
        ("a.tsv", b"instruction\tnote\nThe little cat\ta\n\tb\n \tc\nThe big dog\td\n"),
        ("a.jsonl", b'{"note": 1}\n{"goal": "The little cat"}\n{"goal": null}\n{"goal": "The big dog"}\n'),
        ("a.json", json.dumps([{"prompt": text} for text in TEXTS]).encode()),
    ],
)
def test_texts_are_the_same_in_every_file(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert read_text_lines(tmp_path / name) == neutral_texts(str(tmp_path / name)) == TEXTS


def test_rows_without_a_text_are_counted(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text,note\none,a\n,b\n,c\n")
    assert read_text_lines(tmp_path / "a.csv") == ["one"]
    assert "2 of 3 rows have no text and are left out" in capsys.readouterr().err


@pytest.mark.parametrize("cell", ["nan", "None", 5, ["a"], {"a": 1}])
def test_rejects_cells_that_are_no_text(tmp_path, cell):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ["one", cell]))
    with pytest.raises(BadInput, match="line 2: the text must be a text"):
        read_text_lines(tmp_path / "a.jsonl")


def test_only_line_ends_separate_texts(tmp_path):
    texts = ["one\u2028and still one", "two\x0cand\x85still\x1etwo", "three"]
    (tmp_path / "a.txt").write_bytes("\r\n".join(texts).encode())
    assert read_text_lines(tmp_path / "a.txt") == texts
