"""Concept files that are missing, torn, unclear, too small or too long."""

from collections.abc import Callable

import pytest

from tests.flows.bad_input.place import Place, Refuses
from tests.helpers.planted_lineages import rows


def good() -> list[dict]:
    return rows(characters=30)


def longer_than_the_context(place: Place) -> list[str]:
    table = good()
    for row in table[:7]:
        row["text"] = "many words " * 10 + row["text"]
    return place.trace(None, place.rows(table))


def question_longer_than_the_context(place: Place) -> list[str]:
    table = rows(characters=30, answers=True)
    table[4]["prompt"] = "many words " * 10
    return place.trace(None, place.rows(table))


def answer_without_tokens(place: Place) -> list[str]:
    table = rows(characters=30, answers=True)
    return place.trace(None, place.rows([{k: v for k, v in row.items() if k != "prompt"} for row in table]))


def twice(place: Place) -> list[str]:
    other = place.rows(good(), "more/planted.csv")
    return [*place.trace(), "-c", str(other)]


CONCEPTS: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "no file": (lambda p: p.trace(None, "nowhere.csv"), r"no file nowhere\.csv: give the path"),
    "no such concept": (lambda p: p.trace(None, "subject_numbr"), r"no concept called.*did you mean subject_number"),
    "a folder": (lambda p: p.trace(None, p.text("x", "a.txt").parent), r"must end in \.csv.*got a folder that"),
    "empty": (lambda p: p.trace(None, p.text("")), r"mine\.csv is empty:.*text and label"),
    "header only": (lambda p: p.trace(None, p.text("text,label\n")), r"has a header but no rows"),
    "binary": (lambda p: p.trace(None, p.text(b"\x80\x00\xff" * 99)), r"must be UTF-8 text.*save it as UTF-8"),
    "zeros": (lambda p: p.trace(None, p.text(b"text,label\0\0\0")), r"got a binary file"),
    "another ending": (lambda p: p.trace(None, p.text("x", "a.xlsx")), r"must end in \.csv.*got '\.xlsx'"),
    "missing column": (
        lambda p: p.trace(None, p.rows([{"text": r["text"], "truth": r["label"]} for r in good()])),
        r"no column 'label' or 'target', only 'text', 'truth': name the column",
    ),
    "an open quote": (lambda p: p.trace(None, p.text('text,label\n"one,1\ntwo,0\n')), r"line 2.*quote"),
    "no label in a row": (lambda p: p.trace(None, p.text("text,label\none,1\ntwo,\n")), r"line 3.*label"),
    "a torn line": (lambda p: p.trace(None, p.text('{"text": "on', "a.jsonl")), r"line 1: invalid JSON"),
    "one class": (
        lambda p: p.trace(None, p.rows([r | {"label": "1"} for r in good()])),
        r"needs examples of two classes, but all 60 have.*add the other class",
    ),
    "few groups": (
        lambda p: p.trace(None, p.rows([r | {"group": f"g{i % 4}"} for i, r in enumerate(good())])),
        r"has 4 groups among 60 examples, and needs 10.*add examples, or give",
    ),
    "a class in one group": (
        lambda p: p.trace(None, p.rows([r | {"label": str(int(r["group"] == "c3"))} for r in good()])),
        r"is in 1 group, and needs 2.*add examples",
    ),
    "equal texts": (
        lambda p: p.trace(None, p.rows([r | {"text": "the same"} for r in good()])),
        r"all 60 texts are equal.*right column",
    ),
    "unclear labels": (
        lambda p: p.trace(None, p.rows([r | {"label": str(i % 20)} for i, r in enumerate(good())])),
        r"may be classes or numbers: write names",
    ),
    "too long": (longer_than_the_context, r"7 of 60 texts of mine are longer than the context of 64.*--truncate"),
    "a long question": (
        question_longer_than_the_context,
        r"question of mine has \d+ tokens, more than the context of 64: shorten",
    ),
    "answers without prompt": (answer_without_tokens, r"answers need the columns prompt.*add 'prompt'"),
    "no span": (lambda p: p.trace(None, None, "--position", "mean:span"), r"has no span.*span_start"),
    "two of one name": (twice, r"got 'planted' twice: rename"),
}


@pytest.mark.parametrize(("make", "expected"), CONCEPTS.values(), ids=CONCEPTS)
def test_concepts(make, expected, place: Place, refuses: Refuses) -> None:
    refuses(make(place), expected)
