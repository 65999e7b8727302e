"""Questions with options from files: the formats in which ARC, MMLU, BoolQ, COPA, PIQA, WinoGrande and LAMBADA are given out.

Read by their columns, not by their names: the query/choices/gold files of llm-foundry, BoolQ's and MMLU's own, and the columns of the
Hugging Face Hub's data sets (JSONL, CSV or Parquet). A concept file with questions is such a task, too.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.concepts import _data
from ontogeny.errors import BadInput, unknown
from ontogeny.lab.option_tasks import TASKS

Row = Mapping[str, Any]
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Options:
    """One question; of `options` (as they follow the prompt, with their leading space) `gold` is right."""

    prompt: str
    options: tuple[str, ...]
    gold: int
    """With one option the question is what comes next: it is right where every token is the likeliest."""
    prompts: tuple[str, ...] = ()
    """One prompt an option, where the options stand in the middle (WinoGrande): then `options` are what follows."""


def read_options(name: str | Path) -> list[Options]:
    """The questions of a file, or of a task of `TASKS` by its name.

    Raises:
        BadInput: the file cannot be read, or its columns are those of no known format.
    """
    raw, where = _content(str(name))
    rows = _rows(raw, where)
    if not rows:
        raise BadInput(f"{where} holds no questions. Choose another file.")
    form = next((read for columns, read in FORMATS if columns <= set(rows[0])), None)
    if form is None or (form is _lambada and "label" in rows[0]):
        raise BadInput(
            f"{where} has the columns {', '.join(map(str, rows[0]))}, which are those of no known task. "
            "Give query, choices and gold, or prompt, right and wrong."
        )
    made = []
    for i, row in enumerate(rows):
        try:
            # A concept file may hold texts without a question.
            made += [] if form is _pair and not row.get("prompt") else [form(row)]
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as fault:
            told = f"{type(fault).__name__} {fault}"
            raise BadInput(f"{where}, row {i + 1}: {told}. Correct the row or leave it out.") from None
    return made


def _content(name: str) -> tuple[bytes, str]:
    if name in TASKS and not Path(name).exists():
        return _data.content(TASKS[name])
    path = Path(name)
    if not path.is_file():
        if path.suffix or "/" in name:
            raise BadInput(f"there is no task file {path}. Name a .jsonl, .csv (either may be .gz) or .parquet file.")
        raise unknown("task", name, TASKS)
    raw = path.read_bytes()
    try:
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw), name
    except (OSError, EOFError, zlib.error) as fault:
        raise BadInput(f"{path} cannot be read ({fault}). Fetch it again.") from None


def _rows(raw: bytes, where: str) -> list[dict[str, Any]]:
    if raw[:4] == b"PAR1":
        import duckdb

        found = duckdb.read_parquet(where).fetchdf().to_dict("records")
        return [{str(k): v for k, v in row.items()} for row in found]
    try:
        text = raw.decode("utf-8-sig")
        if text.lstrip()[:1] not in ("{", "["):
            return list(csv.DictReader(io.StringIO(text, newline="")))
        rows = json.loads(text) if text.lstrip()[0] == "[" else [json.loads(x) for x in text.split("\n") if x.strip()]
    except ValueError as fault:
        raise BadInput(f"{where} cannot be read ({fault}). Give JSONL, CSV or Parquet.") from None
    # What holds a question in some rows only (a concept file) names its columns there.
    first = next((i for i, row in enumerate(rows) if row.get("prompt")), 0)
    return [rows[first], *rows[:first], *rows[first + 1 :]] if first else rows


def _query(row: Row) -> Options:
    return Options(str(row["query"]).strip(), _spaced(row["choices"]), int(row["gold"]))


def _boolq(row: Row) -> Options:
    told = row["answer"] if isinstance(row["answer"], bool) else str(row["answer"]).lower() in ("true", "1")
    question = str(row["question"]).strip().rstrip("?")
    return Options(f"{row['passage']}\nQuestion: {question}?\nAnswer:", (" no", " yes"), int(told))


def _mmlu(row: Row) -> Options:
    choices = list(row["choices"]) if "choices" in row else [row[f"choice{i}"] for i in range(4)]
    answer = str(row["answer"]).strip()
    gold = LETTERS.index(answer) if answer in LETTERS else int(answer)
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return Options(
        f"{str(row['question']).strip()}\n{listed}\nAnswer:", tuple(f" {x}" for x in LETTERS[: len(choices)]), gold
    )


def _arc(row: Row) -> Options:
    labels = [str(label) for label in row["choices"]["label"]]
    return Options(
        f"Question: {row['question']}\nAnswer:", _spaced(row["choices"]["text"]), labels.index(str(row["answerKey"]))
    )


def _piqa(row: Row) -> Options:
    return Options(f"Question: {row['goal']}\nAnswer:", _spaced([row["sol1"], row["sol2"]]), int(row["label"]))


def _copa(row: Row) -> Options:
    joint = "because" if row["question"] == "cause" else "therefore"
    start = f"{str(row['premise']).strip().rstrip('.')}, {joint}"
    choices = [str(row[f"choice{i}"]) for i in (1, 2)]
    return Options(start, _spaced([c[:1].lower() + c[1:] for c in choices]), int(row["label"]))


def _winogrande(row: Row) -> Options:
    if "context_options" in row:
        starts, after, gold = list(row["context_options"]), str(row["continuation"]), int(row["gold"])
    else:
        before, _, after = str(row["sentence"]).partition("_")
        starts, gold = [before + str(row[f"option{i}"]) for i in (1, 2)], int(row["answer"]) - 1
    ends = tuple(f" {after.strip()}" for _ in starts)
    return Options(starts[0], ends, gold, tuple(start.rstrip() for start in starts))


def _lambada(row: Row) -> Options:
    if "context" in row:
        return Options(str(row["context"]).rstrip(), (f" {str(row['continuation']).strip()}",), 0)
    before, _, word = str(row["text"]).rstrip().rpartition(" ")
    return Options(before, (f" {word}",), 0)


def _pair(row: Row) -> Options:
    return Options(str(row["prompt"]), (str(row["right"]), str(row["wrong"])), 0)


def _spaced(choices: Any) -> tuple[str, ...]:
    return tuple(f" {str(choice).strip()}" for choice in choices)


FORMATS: tuple[tuple[set[str], Callable[[Row], Options]], ...] = (
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
"""What a file must hold, and how a row of it is read; the first that fits."""
