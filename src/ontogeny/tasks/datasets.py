"""Multiple-choice questions from files: ARC, MMLU, BoolQ, COPA, PIQA, WinoGrande and LAMBADA in their published formats.

Formats are recognised by their columns: the query/choices/gold files of llm-foundry, the original BoolQ and MMLU, and the columns of the
data sets on the Hugging Face Hub (JSONL, CSV or Parquet). A concept file with questions is a task, too.
"""

import ast
import contextlib
import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.data import download
from ontogeny.data.download import DataSource
from ontogeny.data.tables import DataTable, decode_text, is_empty_word, parquet_table, table_from_text
from ontogeny.errors import BadInput, unknown_name

_DatasetRow = Mapping[str, Any]
_OPTION_LETTERS = "ABCDEFGHIJ"
_NO_OPTION = frozenset(("", "nan", "NaN", "NaT", "<NA>"))
"""Words that other programs write for a missing option; "None" may be one."""
_LAMBADA_COLUMNS = frozenset(("text", "domain", "id", "idx"))
"""A file with other columns beside `text` asks something else than its last word."""
_YES, _NO = frozenset(("true", "yes", "y", "t", "1", "1.0")), frozenset(("false", "no", "n", "f", "0", "0.0"))


@dataclass(frozen=True)
class MultipleChoiceQuestion:
    """A question; `options` have their leading space, and `gold` is the index of the right one."""

    prompt: str
    options: tuple[str, ...]
    gold: int
    """With one option the question is correct if each of its tokens is the likeliest."""
    prompts: tuple[str, ...] = ()
    """One prompt per option, if the options are in the middle of the text (WinoGrande); `options` then follow it."""


def read_multiple_choice(name: str | Path) -> list[MultipleChoiceQuestion]:
    """The questions of a file, or of a task of `TASK_SOURCES` by its name.

    Raises:
        BadInput: the file cannot be read, or its columns are those of no known format.
    """
    raw, where = _content(str(name))
    table = _table(raw, where)
    if table is None or not table.rows:
        raise BadInput(f"{where} must have questions, it has no rows: choose another file.")
    columns = set(table.columns)
    form = next((read for needed, read in _DATASET_FORMATS if needed <= columns), None)
    if form is None or (form is _lambada and not columns & {"context"} and columns - _LAMBADA_COLUMNS):
        raise BadInput(
            f"{where} must have the columns of a known task, such as query, choices and gold, or prompt, right and wrong, got "
            f"{', '.join(table.columns)}."
        )
    questions = []
    for row in table.rows:
        # A concept file may hold texts without a question.
        if form is _pair and row.cells.get("prompt") is None:
            continue
        try:
            question = form(row.cells)
            _check_question(question)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as fault:
            reason = str(fault) if type(fault) is ValueError else f"{type(fault).__name__} {fault}"
            raise BadInput(f"{where}, {row.line} cannot be read ({reason}): correct or remove it.") from None
        questions.append(question)
    if not questions:
        raise BadInput(f"{where} must have questions, it has only texts: choose another file.")
    return questions


def _check_question(question: MultipleChoiceQuestion) -> None:
    """Raise ValueError if no option, or more than one, is the right one."""
    options = list(zip(question.prompts or question.options, question.options, strict=True))
    if not 0 <= question.gold < len(options):
        raise ValueError(
            f"the right option must be one of 0 to {len(options) - 1}, got {question.gold}, which marks a missing answer or counts from 1"
        )
    if options.count(options[question.gold]) > 1:
        raise ValueError(f"the right option {question.options[question.gold].strip()!r} must differ from the others")


def _content(name: str) -> tuple[bytes, str]:
    if name in TASK_SOURCES and not Path(name).exists():
        return download.read_content(TASK_SOURCES[name])
    path = Path(name)
    if not path.is_file():
        if path.suffix or "/" in name:
            raise BadInput(f"there is no task file {path}: give a .jsonl, .csv (either may be .gz) or .parquet file.")
        raise unknown_name("task", name, TASK_SOURCES)
    raw = path.read_bytes()
    try:
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw), name
    except (OSError, EOFError, zlib.error) as fault:
        raise BadInput(f"{path} cannot be read ({fault}): download it again.") from None


def _table(raw: bytes, where: str) -> DataTable | None:
    """The table of a file in any format; None if it is blank."""
    if raw[:4] == b"PAR1":
        return parquet_table(Path(where))
    text = decode_text(raw, where)
    if not text.strip():
        return None
    suffix = {"{": ".jsonl", "[": ".json"}.get(text.lstrip()[0], ".csv")
    return table_from_text(text, where, suffix)


def _words(row: _DatasetRow, column: str) -> str:
    """The text of a cell.

    Raises:
        ValueError: the cell is empty, or no text.
    """
    cell = row[column]
    if cell is None or is_empty_word(cell) or not str(cell).strip() or isinstance(cell, list | dict):
        raise ValueError(f"the {column} must be a text, got {cell!r}")
    return str(cell)


def _index(cell: Any) -> int:
    """The index of the right option: a whole number, as a number or as text."""
    if isinstance(cell, float | int) and not isinstance(cell, bool) and cell == int(cell):
        return int(cell)
    if isinstance(cell, str) and re.fullmatch(r"\s*-?\d+(\.0)?\s*", cell):
        return int(float(cell))
    raise ValueError(f"the right option must be a number, got {cell!r}")


def _choices(cell: Any) -> tuple[str, ...]:
    """Two or more options, each with a leading space; a CSV file may hold the list as JSON or as Python writes it."""
    if isinstance(cell, str):
        # NumPy writes a list without commas, which Python would read as one joined string.
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            cell = cell if re.search(r"""['"]\s+['"]""", cell) else ast.literal_eval(cell)
    if not isinstance(cell, list | tuple) or len(cell) < 2:
        raise ValueError(f"the options must be a list of two or more, got {str(cell)[:60]!r}")
    if empty := [choice for choice in cell if choice is None or str(choice).strip() in _NO_OPTION]:
        raise ValueError(f"each option must be a text, got {empty[0]!r}")
    return tuple(f" {str(choice).strip()}" for choice in cell)


def _numbered(row: _DatasetRow, name: str) -> list[Any]:
    """The cells of choice0, choice1, … as far as the columns go; empty ones after the fourth are left out."""
    cells: list[Any] = []
    while (column := f"{name}{len(cells)}") in row:
        cells.append(row[column])
    while len(cells) > 4 and (cells[-1] is None or str(cells[-1]).strip() in _NO_OPTION):
        cells.pop()
    return cells


def _query(row: _DatasetRow) -> MultipleChoiceQuestion:
    query = _words(row, "query").strip()
    # The files of llm-foundry have the question only; the other formats get the same words.
    if query.startswith("Question:") and not query.endswith("Answer:"):
        query += "\nAnswer:"
    return MultipleChoiceQuestion(query, _choices(row["choices"]), _index(row["gold"]))


def _boolq(row: _DatasetRow) -> MultipleChoiceQuestion:
    answer = str(row["answer"]).strip().lower()
    if answer not in _YES | _NO:
        raise ValueError(f"the answer must be true or false, got {row['answer']!r}")
    question = _words(row, "question").strip().rstrip("?")
    return MultipleChoiceQuestion(
        f"{_words(row, 'passage')}\nQuestion: {question}?\nAnswer:", (" no", " yes"), int(answer in _YES)
    )


def _mmlu(row: _DatasetRow) -> MultipleChoiceQuestion:
    choices = _choices(row["choices"] if "choices" in row else _numbered(row, "choice"))
    answer = str(row["answer"]).strip().upper()
    letters = list(_OPTION_LETTERS)
    listed = "\n".join(f"{letter}.{choice}" for letter, choice in zip(letters, choices, strict=False))
    return MultipleChoiceQuestion(
        f"{_words(row, 'question').strip()}\n{listed}\nAnswer:",
        tuple(f" {x}" for x in letters[: len(choices)]),
        letters.index(answer) if answer in letters else _index(row["answer"]),
    )


def _arc(row: _DatasetRow) -> MultipleChoiceQuestion:
    labels = [str(label) for label in row["choices"]["label"]]
    if (key := str(row["answerKey"]).strip()) not in labels:
        raise ValueError(f"the answerKey must be one of {', '.join(labels)}, got {key!r}")
    return MultipleChoiceQuestion(
        f"Question: {_words(row, 'question')}\nAnswer:", _choices(row["choices"]["text"]), labels.index(key)
    )


def _piqa(row: _DatasetRow) -> MultipleChoiceQuestion:
    return MultipleChoiceQuestion(
        f"Question: {_words(row, 'goal')}\nAnswer:", _choices([row["sol1"], row["sol2"]]), _index(row["label"])
    )


def _copa(row: _DatasetRow) -> MultipleChoiceQuestion:
    joint = {"cause": "because", "effect": "therefore"}.get(str(row["question"]).strip().lower())
    if joint is None:
        raise ValueError(f"the question must be cause or effect, got {row['question']!r}")
    start = f"{_words(row, 'premise').strip().rstrip('.')}, {joint}"
    choices = [_words(row, f"choice{i}") for i in (1, 2)]
    return MultipleChoiceQuestion(start, _choices([c[:1].lower() + c[1:] for c in choices]), _index(row["label"]))


def _winogrande(row: _DatasetRow) -> MultipleChoiceQuestion:
    if "context_options" in row:
        starts, after = (
            [start.removeprefix(" ") for start in _choices(row["context_options"])],
            _words(row, "continuation"),
        )
        gold = _index(row["gold"])
    else:
        before, blank, after = _words(row, "sentence").partition("_")
        if not blank or not after.strip():
            raise ValueError(f"the sentence must have a _ before its end, got {row['sentence']!r}")
        starts, gold = [before + _words(row, f"option{i}") for i in (1, 2)], _index(row["answer"]) - 1
    ends = tuple(f" {after.strip()}" for _ in starts)
    return MultipleChoiceQuestion(starts[0], ends, gold, tuple(start.rstrip() for start in starts))


def _lambada(row: _DatasetRow) -> MultipleChoiceQuestion:
    if "context" in row:
        return MultipleChoiceQuestion(_words(row, "context").rstrip(), (f" {_words(row, 'continuation').strip()}",), 0)
    before, _, word = _words(row, "text").rstrip().rpartition(" ")
    return MultipleChoiceQuestion(before, (f" {word}",), 0)


def _pair(row: _DatasetRow) -> MultipleChoiceQuestion:
    _choices([row["right"], row["wrong"]])
    return MultipleChoiceQuestion(_words(row, "prompt"), (str(row["right"]), str(row["wrong"])), 0)


_DATASET_FORMATS: tuple[tuple[set[str], Callable[[_DatasetRow], MultipleChoiceQuestion]], ...] = (
    ({"prompt", "right", "wrong"}, _pair),
    ({"context_options", "continuation", "gold"}, _winogrande),
    ({"query", "choices", "gold"}, _query),
    ({"question", "passage", "answer"}, _boolq),
    ({"question", "choices", "answerKey"}, _arc),
    ({"question", "choices", "answer"}, _mmlu),
    ({"question", "choice0", "answer"}, _mmlu),
    ({"goal", "sol1", "sol2", "label"}, _piqa),
    ({"premise", "choice1", "choice2", "label"}, _copa),
    ({"sentence", "option1", "option2", "answer"}, _winogrande),
    ({"context", "continuation"}, _lambada),
    ({"text"}, _lambada),
)
"""Required columns and the reader of a row; the first match is used."""


_FOUNDRY, _FOUNDRY_COMMIT = "mosaicml/llm-foundry", "8c8dd48f72168c5d51e2f7b151595892a8fba43d"


def _foundry(file: str, path: str, sha256: str) -> DataSource:
    return DataSource(f"general/{file}", _FOUNDRY, f"scripts/eval/local_data/{path}", _FOUNDRY_COMMIT, sha256)


TASK_SOURCES: Mapping[str, DataSource] = {
    "arc_easy": _foundry(
        "arc_easy_test.jsonl.gz",
        "world_knowledge/arc_easy.jsonl",
        "d2d12e59543acf9a5ef6079634a72b30215e36c2fd4236fff3bc855d287b87f5",
    ),
    "arc_challenge": _foundry(
        "arc_challenge_test.jsonl.gz",
        "world_knowledge/arc_challenge.jsonl",
        "1ae3aeedf1951d881cbd5c2e3a31e78a1993d251479afbe4cb413b6707244636",
    ),
    "lambada": _foundry(
        "lambada_openai_test.jsonl.gz",
        "language_understanding/lambada_openai.jsonl",
        "411bfbe5b9054346b6a19299c0242670adbefb9162efd958593cbc0290b8c9dc",
    ),
    "piqa": _foundry(
        "piqa_validation.jsonl.gz",
        "commonsense_reasoning/piqa.jsonl",
        "d2870e73aec5154df3faf259b7700876e11608eebdf69e9d6667435673dbe4e0",
    ),
    "copa": _foundry(
        "copa_validation.jsonl",
        "commonsense_reasoning/copa.jsonl",
        "595dca44dec54c849490bd403a3e24a29e3b944065783222ebb0eb1a55298846",
    ),
    "winogrande": _foundry(
        "winogrande_validation.jsonl.gz",
        "language_understanding/winogrande.jsonl",
        "ea1592526f3bfdd0948ed3acb1b4dfa3f83d23698917118688ee1df7f8d4b8d7",
    ),
    "boolq": DataSource(
        "general/boolq_dev.jsonl.gz",
        "frankxwang/probing-experiments",
        "dev.jsonl",
        "b7eb5a9f55e266503b18778bd3b9c1c6b314aea1",
        "ebc29ea3808c5c611672384b3de56e83349fe38fc1fe876fd29b674d81d0a80a",
    ),
    # A folder with one file per subject, which cannot be downloaded as one: read from ONTOGENY_DATA only.
    "mmlu": DataSource(
        "general/mmlu_test.csv.gz", "HaeChan0305/MLILAB-FedLLM", "data/mmlu/test/", "d92730e8bacd", None
    ),
}
