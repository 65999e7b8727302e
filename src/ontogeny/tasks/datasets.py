"""Multiple-choice questions from files: ARC, MMLU, BoolQ, COPA, PIQA, WinoGrande and LAMBADA in their published formats.

Formats are recognised by their columns: the query/choices/gold files of llm-foundry, the original BoolQ and MMLU, and the columns of the
data sets on the Hugging Face Hub (JSONL, CSV or Parquet). A concept file with questions is a task, too.
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

from ontogeny.data import download
from ontogeny.data.download import DataSource
from ontogeny.errors import BadInput, unknown_name

_DatasetRow = Mapping[str, Any]
_OPTION_LETTERS = "ABCDEFGHIJ"


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
    rows = _rows(raw, where)
    if not rows:
        raise BadInput(f"{where} must have questions, it has no rows: choose another file.")
    form = next((read for columns, read in _DATASET_FORMATS if columns <= set(rows[0])), None)
    if form is None or (form is _lambada and "label" in rows[0]):
        raise BadInput(
            f"{where} must have the columns of a known task, such as query, choices and gold, or prompt, right and wrong, got "
            f"{', '.join(map(str, rows[0]))}."
        )
    questions = []
    for i, row in enumerate(rows):
        try:
            # A concept file may hold texts without a question.
            questions += [] if form is _pair and not row.get("prompt") else [form(row)]
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as fault:
            raise BadInput(
                f"{where}, row {i + 1} cannot be read ({type(fault).__name__} {fault}): correct or remove it."
            ) from None
    return questions


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


def _rows(raw: bytes, where: str) -> list[dict[str, Any]]:
    if raw[:4] == b"PAR1":
        import duckdb

        table = duckdb.read_parquet(where).fetchdf().to_dict("records")
        return [{str(k): v for k, v in row.items()} for row in table]
    try:
        text = raw.decode("utf-8-sig")
        if text.lstrip()[:1] not in ("{", "["):
            return list(csv.DictReader(io.StringIO(text, newline="")))
        rows = json.loads(text) if text.lstrip()[0] == "[" else [json.loads(x) for x in text.split("\n") if x.strip()]
    except ValueError as fault:
        raise BadInput(f"{where} must be JSONL, CSV or Parquet, it cannot be read ({fault}).") from None
    # In a concept file only the rows with a question have all columns.
    first = next((i for i, row in enumerate(rows) if row.get("prompt")), 0)
    return [rows[first], *rows[:first], *rows[first + 1 :]] if first else rows


def _query(row: _DatasetRow) -> MultipleChoiceQuestion:
    return MultipleChoiceQuestion(str(row["query"]).strip(), _with_leading_space(row["choices"]), int(row["gold"]))


def _boolq(row: _DatasetRow) -> MultipleChoiceQuestion:
    answer = row["answer"] if isinstance(row["answer"], bool) else str(row["answer"]).lower() in ("true", "1")
    question = str(row["question"]).strip().rstrip("?")
    return MultipleChoiceQuestion(f"{row['passage']}\nQuestion: {question}?\nAnswer:", (" no", " yes"), int(answer))


def _mmlu(row: _DatasetRow) -> MultipleChoiceQuestion:
    choices = list(row["choices"]) if "choices" in row else [row[f"choice{i}"] for i in range(4)]
    answer = str(row["answer"]).strip()
    gold = _OPTION_LETTERS.index(answer) if answer in _OPTION_LETTERS else int(answer)
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(_OPTION_LETTERS, choices, strict=False))
    return MultipleChoiceQuestion(
        f"{str(row['question']).strip()}\n{listed}\nAnswer:",
        tuple(f" {x}" for x in _OPTION_LETTERS[: len(choices)]),
        gold,
    )


def _arc(row: _DatasetRow) -> MultipleChoiceQuestion:
    labels = [str(label) for label in row["choices"]["label"]]
    return MultipleChoiceQuestion(
        f"Question: {row['question']}\nAnswer:",
        _with_leading_space(row["choices"]["text"]),
        labels.index(str(row["answerKey"])),
    )


def _piqa(row: _DatasetRow) -> MultipleChoiceQuestion:
    return MultipleChoiceQuestion(
        f"Question: {row['goal']}\nAnswer:", _with_leading_space([row["sol1"], row["sol2"]]), int(row["label"])
    )


def _copa(row: _DatasetRow) -> MultipleChoiceQuestion:
    joint = "because" if row["question"] == "cause" else "therefore"
    start = f"{str(row['premise']).strip().rstrip('.')}, {joint}"
    choices = [str(row[f"choice{i}"]) for i in (1, 2)]
    return MultipleChoiceQuestion(
        start, _with_leading_space([c[:1].lower() + c[1:] for c in choices]), int(row["label"])
    )


def _winogrande(row: _DatasetRow) -> MultipleChoiceQuestion:
    if "context_options" in row:
        starts, after, gold = list(row["context_options"]), str(row["continuation"]), int(row["gold"])
    else:
        before, _, after = str(row["sentence"]).partition("_")
        starts, gold = [before + str(row[f"option{i}"]) for i in (1, 2)], int(row["answer"]) - 1
    ends = tuple(f" {after.strip()}" for _ in starts)
    return MultipleChoiceQuestion(starts[0], ends, gold, tuple(start.rstrip() for start in starts))


def _lambada(row: _DatasetRow) -> MultipleChoiceQuestion:
    if "context" in row:
        return MultipleChoiceQuestion(str(row["context"]).rstrip(), (f" {str(row['continuation']).strip()}",), 0)
    before, _, word = str(row["text"]).rstrip().rpartition(" ")
    return MultipleChoiceQuestion(before, (f" {word}",), 0)


def _pair(row: _DatasetRow) -> MultipleChoiceQuestion:
    return MultipleChoiceQuestion(str(row["prompt"]), (str(row["right"]), str(row["wrong"])), 0)


def _with_leading_space(choices: Any) -> tuple[str, ...]:
    return tuple(f" {str(choice).strip()}" for choice in choices)


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
