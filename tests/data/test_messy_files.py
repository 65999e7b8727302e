"""Files as other programs write them: encodings, delimiters, quotes, empty cells, missing labels, columns of another meaning."""

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer
from ontogeny.data.open_concept import load_concept
from ontogeny.data.tables import read_table
from ontogeny.errors import BadInput
from ontogeny.measurements.surface_baselines import audit_surface
from ontogeny.statistics.splits import group_split

N = 24


def rows(labels: tuple[object, ...] = (1, 0), n: int = N, **columns: object) -> list[dict[str, object]]:
    return [{"text": f"some text {i}", "label": labels[i % len(labels)], **columns} for i in range(n)]


def as_csv(table: list[dict[str, object]], delimiter: str = ",") -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(table[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue()


def concept(folder: Path, table: list[dict[str, object]], **arguments: object) -> Concept:
    path = folder / "mood.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return Concept.from_file(path, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x.csv", lambda t: ("\ufeff" + as_csv(t)).encode()),
        ("x.csv", lambda t: as_csv(t).encode("utf-16")),
        ("x.tsv", lambda t: ("\ufeff" + as_csv(t, "\t")).encode("utf-16-be")),
        ("x.csv", lambda t: as_csv(t, ";").encode()),
        ("x.csv", lambda t: as_csv(t, "\t").encode()),
        ("x.csv", lambda t: as_csv(t, "|").encode()),
        ("x.tsv", lambda t: as_csv(t).encode()),
        ("x.csv", lambda t: ("sep=;\r\n" + as_csv(t, ";")).encode()),
        ("x.json", lambda t: json.dumps(t, indent=1).encode()),
        ("x.json", lambda t: "\n".join(map(json.dumps, t)).encode()),
        ("x.jsonl", lambda t: ("\ufeff" + "\r\n".join(map(json.dumps, t))).encode()),
    ],
)
def test_encodings_and_delimiters_give_the_same_concept(tmp_path: Path, name: str, change) -> None:
    table = [row | {"text": f"{row['text']}, so; what"} for row in rows()]
    (tmp_path / name).write_bytes(change(table))
    assert Concept.from_file(tmp_path / name).hash == concept(tmp_path, table).hash


def test_parquet_equals_jsonl(tmp_path: Path) -> None:
    import duckdb
    import pandas as pd

    table = rows(group="g")
    table = [row | {"group": f"g {i // 2}", "note": None if i else "a"} for i, row in enumerate(table)]
    path = tmp_path / "a [1]*.parquet"
    duckdb.from_df(pd.DataFrame(table)).write_parquet(str(tmp_path / "b.parquet"))
    (tmp_path / "b.parquet").rename(path)
    assert Concept.from_file(path).hash == concept(tmp_path, table).hash
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BadInput, match="cannot be read as Parquet") as caught:
        Concept.from_file(path)
    assert "\n" not in str(caught.value)


def test_long_cells_are_read_in_every_format(tmp_path: Path) -> None:
    table = rows()
    table[3]["text"] = "word " * 40_000
    (tmp_path / "x.csv").write_text(as_csv(table))
    assert Concept.from_file(tmp_path / "x.csv").hash == concept(tmp_path, table).hash


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rejects_a_quote_after_a_space(tmp_path: Path, delimiter: str) -> None:
    lines = [f'{i % 2}{delimiter} "some text {i}{delimiter} and"' for i in range(N)]
    (tmp_path / "x.csv").write_text("\n".join([f"label{delimiter}text", *lines]))
    with pytest.raises(BadInput, match="line 2: an opening quote must follow the delimiter"):
        Concept.from_file(tmp_path / "x.csv")


def test_quotes_inside_texts_and_spaces_before_answers_stay(tmp_path: Path) -> None:
    table = [row | {"prompt": f"It {i}", "right": ' "Yes"', "wrong": " no"} for i, row in enumerate(rows())]
    table[0]["text"] = ' "Stop" she said'
    (tmp_path / "x.csv").write_text(as_csv(table))
    read = Concept.from_file(tmp_path / "x.csv")
    assert read.answers[0] == Answer("It 0", ' "Yes"', " no", read.answers[0].group)
    assert read.texts[0] == ' "Stop" she said'


@pytest.mark.parametrize("word", ["nan", "None", "NULL", "<NA>", "NaN", "#REF!", "#DIV/0!"])
def test_rejects_words_that_programs_write_for_an_empty_cell(tmp_path: Path, word: str) -> None:
    table = rows()
    table[5]["text"] = word
    with pytest.raises(BadInput, match=r"line 6: the text is .* which programs write for an empty cell"):
        concept(tmp_path, table)
    with pytest.raises(BadInput, match="line 3: the prompt is"):
        concept(tmp_path, [*rows()[:2], rows()[2] | {"prompt": word, "right": " a", "wrong": " b"}, *rows()[3:]])
    with pytest.raises(BadInput, match="line 3: the group is empty"):
        concept(tmp_path, [row | {"group": word if i == 2 else f"g{i}"} for i, row in enumerate(rows())])


@pytest.mark.parametrize(
    "labels",
    [
        (0, 1, -1), ("0", "1", "-1"), (0, 1, -100), (0, 1, 2, -1), (0.0, 1.0, -1.0), ("true", "false", "N/A"), (True, False, "n/a"), 
        ("yes", "no", "TBD"), ("a", "b", "todo"),
        ("yes", "no", "none"), ("yes", "no", "Unknown"), (0, 1, "?"), ("joy", "anger", "missing"), ("pos", "neg", "NULL"),
        ("joy", "anger", "unlabeled"), ("true", "false", "mixed"), (True, False, "idk"), ("yes", "no", "both"), ("pos", "neg", "skip"),
        ("pos", "neg", "–"), ("pos", "neg", "..."), (0, 1, 99), (0, 1, 9), (1, 2, 3, 9), ("0", "1", "999"), ("pos", "neg", "ERROR"),
    ],
)  # fmt: skip
def test_rejects_markers_of_missing_labels(tmp_path: Path, labels: tuple[object, ...]) -> None:
    with pytest.raises(BadInput, match=f"line {len(labels)}: the label .* looks like a missing one"):
        concept(tmp_path, rows(labels))
    assert concept(tmp_path, rows(labels, kind="classes")).kind == "classes"


@pytest.mark.parametrize(
    "labels", [
        (1, -1), (-2, -1, 0, 1), ("favor", "against", "none"), (1, 2, 3), ("other", "same"), (7, 8, 9), (0, 9), ("😀", "😢", "😡"),
        ("true", "half-true", "false", "pants-fire"), ("C", "C++", "C#"),
    ],
)  # fmt: skip
def test_labels_that_look_alike_but_are_classes_are_kept(tmp_path: Path, labels: tuple[object, ...]) -> None:
    assert len(concept(tmp_path, rows(labels)).classes) == len(labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("yes", "no", "Y"), "mix words for yes and no"),
        (("true", "false", "yes", "no"), "mix words for yes and no"),
        (("Pos", "pos", "neg"), "line 2: the labels 'pos' and 'Pos' differ only in case"),
        (("caf\u00e9", "cafe\u0301", "tea"), "line 2: the labels .* differ in no visible character"),
        (("positive", "positive.", "negative"), "line 2: the labels .* differ only in punctuation"),
        (("positive", '"Positive"', "negative"), "line 2: the labels .* differ only in punctuation"),
        (("pos", "pos\u200b", "neg"), "line 2: the labels .* differ in no visible character"),
        (("0,5", "1,5"), "must have a decimal point: write 0.5"),
        (("[0]", "[1]"), "got the list"),
    ],
)
def test_rejects_one_class_written_in_several_ways(tmp_path: Path, labels: tuple[object, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        concept(tmp_path, rows(labels))


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (("correct", "incorrect"), "correct"), (("incorrect", "correct"), "correct"), (("not_matching", "matching"), "matching"),
        (("non-hateful", "hateful"), "hateful"), (("harmless", "harmful"), "harmful"), (("safe", "unsafe"), "unsafe"),
        (("wrong", "right"), "right"), (("neg", "pos"), "pos"), (("fictional", "true"), "true"), (("plural", "singular"), "plural"),
        (("singular", "plural"), "singular"), ((1, 2), "2"), ((1, -1), "1"), (("legal", "illegal"), "legal"),
        (("neutral", "toxic"), "toxic"), (("-", "+"), "+"),
    ],
)  # fmt: skip
def test_positive_class_follows_the_word_then_the_first_label(
    tmp_path: Path, labels: tuple[object, ...], positive: str
) -> None:
    read = concept(tmp_path, rows(labels))
    assert read.classes[1] == positive
    assert [read.classes[e.target] for e in read.examples[:2]] == [str(label) for label in labels]


def test_stated_positive_class_takes_precedence(tmp_path: Path) -> None:
    assert concept(tmp_path, rows(("correct", "incorrect")), positive="incorrect").classes[1] == "incorrect"
    assert concept(tmp_path, rows(("correct", "incorrect"), positive="incorrect")).classes[1] == "incorrect"
    assert concept(tmp_path, rows((1, 0)), positive="0").classes == ("1", "0")
    assert concept(tmp_path, rows((True, False)), positive="False").labels()[:2].tolist() == [False, True]
    assert concept(tmp_path, rows(positive="a sentence of a triplet")).classes == ()
    with pytest.raises(BadInput, match="`positive` must be one of two labels, got 'maybe'"):
        concept(tmp_path, rows(), positive="maybe")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("position", (1, 2)),
        ("position", ("left", "left")),
        ("kind", ("number", "place")),
        ("span", ("[0, 5]", "[0, 5]")),
    ],
)
def test_columns_of_another_meaning_can_be_left_out(tmp_path: Path, column: str, values: tuple[object, ...]) -> None:
    table = [row | {column: values[i % 2]} for i, row in enumerate(rows())]
    with pytest.raises(
        BadInput, match="means something else, rename or remove the column, or leave it out with `ignore`"
    ):
        concept(tmp_path, table)
    assert concept(tmp_path, table, ignore=(column,)).hash == concept(tmp_path, rows()).hash
    with pytest.raises(BadInput, match="no column 'absent'"):
        concept(tmp_path, table, ignore=("absent",))


def test_rejects_equal_answers(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="line 1: right and wrong must be two answers, got ' happy' twice"):
        concept(tmp_path, rows(prompt="It was", right=" happy", wrong=" happy"))
    with pytest.raises(BadInput, match="right and wrong must be two answers"):
        concept(tmp_path, rows(prompt="It was", right=" happy", wrong="happy "))


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is it so?"},
    {"role": "assistant", "content": "It is."},
]


def chats(kind: str) -> list[dict[str, object]]:
    table = []
    for row in rows():
        turns = [*CHAT[:2], CHAT[2] | {"content": row["text"]}]
        if kind == "sharegpt":
            names = {"user": "human", "assistant": "gpt", "system": "system"}
            table.append({"conversations": [{"from": names[t["role"]], "value": t["content"]} for t in turns]})
        elif kind == "parts":
            table.append({"messages": [t | {"content": [{"type": "text", "text": t["content"]}]} for t in turns]})
        else:
            table.append({"messages": {"json": json.dumps(turns), "python": str(turns)}.get(kind, turns)})
        table[-1]["label"] = row["label"]
    return table


@pytest.mark.parametrize("kind", ["plain", "sharegpt", "parts", "json", "python"])
def test_chats_are_read_with_their_turns(tmp_path: Path, kind: str) -> None:
    read, plain = concept(tmp_path, chats(kind)), concept(tmp_path, chats("plain"))
    assert read.hash == plain.hash
    assert read.examples[0].chat == (("system", "Be brief."), ("user", "Is it so?"), ("assistant", "some text 0"))
    assert read.texts[0] == "system: Be brief.\n\nuser: Is it so?\n\nassistant: some text 0"


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "a list of turns"), ("hello", "a list of turns"), ([{"role": "user", "content": ""}], "a role and words"),
        ([{"who": "user"}], "a turn must have role and content, got who"), ([{"role": "user", "content": None}], "a role and words"),
        ([{"role": "user", "content": [{"type": "image"}]}], "only text"), (None, "a list of turns"),
    ],
)  # fmt: skip
def test_rejects_broken_chats_in_one_line(tmp_path: Path, turns: object, message: str) -> None:
    with pytest.raises(BadInput, match=f"line 2: messages: .*{message}"):
        concept(tmp_path, [chats("plain")[0], {"messages": turns, "label": 0}, *chats("plain")[2:]])


def test_folders_and_hub_data_sets_without_the_library_say_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    for source in (tmp_path / "saved", "stanfordnlp/sst2", "stanfordnlp/sst2:validation"):
        with pytest.raises(BadInput, match="needs the package datasets: run pip install"):
            read_table(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="got a folder that datasets"):
        read_table(tmp_path / "empty")


class FakeDataset(list):
    """What the library gives: rows, names of columns, names of classes."""

    def __init__(self, table: list[dict[str, object]]) -> None:
        super().__init__(table)
        self.features = {"text": object(), "label": SimpleNamespace(names=("negative", "positive"))}
        self.column_names = ("text", "label")


def test_class_names_and_splits_of_a_data_set_are_used(tmp_path: Path, monkeypatch) -> None:
    splits = {"train": FakeDataset(rows()), "test": FakeDataset(rows(n=30))}
    library = SimpleNamespace(load_dataset=lambda name: splits, load_from_disk=lambda path: splits["train"])
    monkeypatch.setitem(__import__("sys").modules, "datasets", library)
    read = Concept.from_file("owner/mood")
    assert (read.name, read.classes, read.labels()[:2].tolist()) == ("mood", ("negative", "positive"), [True, False])
    assert len(Concept.from_file("owner/mood:test").examples) == 30
    with pytest.raises(BadInput, match="must have the split 'dev', got train, test"):
        Concept.from_file("owner/mood:dev")
    (tmp_path / "dataset_dict.json").write_text("{}")
    assert Concept.from_file(tmp_path).hash == read.hash


def test_rejects_a_text_beside_a_chat(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}]
    table = [row | {"messages": turns} for row in rows()]
    with pytest.raises(BadInput, match="has both columns 'text' and 'messages'"):
        concept(tmp_path, table)
    assert concept(tmp_path, table, text="text").examples[0].chat == ()
    assert concept(tmp_path, table, ignore=["messages"]).examples[0].chat == ()
    assert len(concept(tmp_path, [row | {"messages": 3} for row in rows()]).examples) == N  # a number of messages


def test_groups_written_as_floats_and_as_integers_are_the_same(tmp_path: Path) -> None:
    table = [row | {"group": float(i // 2) if i % 2 else i // 2} for i, row in enumerate(rows())]
    assert len({example.group for example in concept(tmp_path, table).examples}) == N // 2
    floats = [
        row | {"group": float(i // 2)} for i, row in enumerate(rows())
    ]  # written in one way they keep their names
    assert concept(tmp_path, floats).examples[0].group == "0.0"


def test_rejects_a_frame_without_rows_and_a_single_column() -> None:
    frame = pd.DataFrame(rows())
    for source, message in (
        (frame.head(0), "the data frame has no rows"),
        (frame.text, "got a Series: give the whole frame"),
    ):
        with pytest.raises(BadInput, match=message):
            load_concept(source, name="mood")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (("cat", "caf\u00c3\u00a9"), "read in another encoding"),
        (("cat", "itâ€™s"), "read in another encoding"),
        (("cat", "cats &amp; dogs"), "HTML entities"),
        (("cat", "one\\ntwo"), "in place of a new line"),
        (("cat", "\ufffd"), r"U\+FFFD"),
    ],
)
def test_texts_that_were_damaged_on_their_way_are_named(tmp_path: Path, damage: tuple[str, str], what: str) -> None:
    table = rows()
    table[0]["text"] = str(table[0]["text"]) + " " + damage[1]
    table[1]["text"] = str(table[1]["text"]) + r" $\nu \neq \nabla$, AT&T; Ã and â"
    damaged = concept(tmp_path, table)
    audit = audit_surface(damaged, group_split(damaged.group_ids(), damaged.labels(), "binary"), samples=10)
    assert [w for w in audit.warnings if re.search(what, w)] == [
        w for w in audit.warnings if w.startswith("a text holds")
    ]


@pytest.mark.parametrize("several", [[" a", " b"], "[' a', ' b']", '[" a"]', {"text": [" a"]}])
@pytest.mark.parametrize("column", ["right", "wrong"])
def test_several_answers_in_one_cell_are_refused(tmp_path: Path, several: object, column: str) -> None:
    table = [
        row | {"prompt": f"Q{i}?", "right": " a", "wrong": " b"} | {column: several} for i, row in enumerate(rows())
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    with pytest.raises(
        BadInput, match=rf"line 1: the {column} must be one text, got .*: give each answer a row of its own"
    ):
        Concept.from_file(tmp_path / "x.jsonl")


@pytest.mark.parametrize("kind", ["regression", "Classification", "numeric"])
def test_other_words_for_a_kind_are_refused_where_they_would_be_passed_over(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadInput, match=r"the column 'kind' must be binary, classes, number, got"):
        concept(tmp_path, rows(kind=kind))
    assert concept(tmp_path, rows(kind="Binary")).kind == "binary"


def test_questions_that_are_asked_again_are_counted(tmp_path: Path) -> None:
    asked = [row | {"prompt": "Is it?", "right": " yes", "wrong": " [no]", "group": i} for i, row in enumerate(rows())]
    repeated = concept(tmp_path, asked)
    audit = audit_surface(repeated, group_split(repeated.group_ids(), repeated.labels(), "binary"), samples=10)
    assert any(w.startswith(f"{N - 1} of {N} questions repeat one of another group") for w in audit.warnings)
