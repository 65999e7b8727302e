"""Options and arguments that several commands share, and the parsers of their values."""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.data.plain_texts import PlainTexts
    from ontogeny.direction import Direction


def _option(panel: str, help: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


measure, texts, steering, training, compute, ray, output = (
    functools.partial(_option, panel)
    for panel in ("What to measure", "Texts", "Steering", "Training", "Compute", "Ray", "Output")
)
"""Options of one panel of `--help`: the help text, then the spellings where they are not the parameter's name."""


def plugin_completion(folder: str) -> Callable[[str], list[str]]:
    """Completion in the shell of the names of plug-ins; where none fits, the shell completes names of files."""

    def complete(incomplete: str) -> list[str]:
        from ontogeny.plugins import list_plugins

        return [name for name in list_plugins(folder) if name.startswith(incomplete)]

    return complete


LineageArgument = Annotated[
    str, typer.Argument(help="Hub repository, folder of checkpoints, single model, or lineage.toml.")
]
RunArgument = Annotated[Path, typer.Argument(help="Run directory.")]
ConceptNames = Annotated[
    list[str],
    texts(
        "Concept: file (CSV, TSV, JSON, JSONL, Parquet), folder of `datasets`, Hub data set OWNER/NAME[:SPLIT], or name from "
        "`ontogeny list concepts`; repeat for more.",
        "--concept",
        "-c",
        autocompletion=plugin_completion("concepts"),
    ),
]
Steps = Annotated[
    str,
    measure(
        "Checkpoints: all, log, log:8, last, every:10, 0,1000, 1000-5000, or by stage: base=log:4;sft=last; others are left out."
    ),
]
SiteName = Annotated[
    str | None, measure("Site of the direction, such as resid.3; default: the best site of the concept.")
]
TEMPLATE_HELP = (
    "Template in which a text is a user's turn: none, own (each checkpoint's chat template; one without is read bare), a file, "
    "or a text: Jinja, or with {} where the words go."
)
TemplateOption = Annotated[str, texts(TEMPLATE_HELP)]
Limit = Annotated[
    int | None, texts("Maximum number of examples per concept; groups are kept whole. Default: all.", min=1)
]
TextColumn = Annotated[str | None, texts("Column of the texts; default: text or statement.")]
LabelColumn = Annotated[str | None, texts("Column of the labels; default: label or target. Needed if a file has both.")]
Positive = Annotated[
    str | None,
    texts("Label of the positive class. Default: the file's column positive, a word such as true, or the first label."),
]
IgnoreColumn = Annotated[
    list[str] | None,
    texts("Column to leave out, because it means something else (type, kind, position, span); repeat."),
]
Neutral = Annotated[
    str | None, texts("Neutral texts: a text file, table or concept. Default: texts of the given concepts.")
]
Alpha = Annotated[str, steering("Multiples of the vector that are added, separated by commas.")]
Controls = Annotated[
    int, steering("Random directions of equal norm, the null of each effect. A p-value needs many.", min=0)
]
Shuffles = Annotated[int, steering("Vectors fitted on shuffled labels, the second null of each effect.", min=0)]
NewTokens = Annotated[int, steering("Maximum number of new tokens.", min=1)]
Seed = Annotated[int, compute("Seed of splits, resamples and random draws.")]
Device = Annotated[str, compute("cpu, cuda, cuda:1, mps, or auto: the fastest of this machine.")]
DataType = Annotated[str, compute("float32 (exact), bfloat16 or float16 (faster; results change slightly).")]
Tokenizer = Annotated[Path | None, compute("Tokenizer folder or repository, if the checkpoints have none.")]
AllowPickle = Annotated[
    bool, compute("Also read pytorch_model.bin and .distcp shards (weights only).", "--allow-pickle")
]
DeleteBehind = Annotated[bool, compute("Delete each downloaded checkpoint after use.", "--delete-behind")]
DryRun = Annotated[bool, output("Print what would be computed, and stop.", "--dry-run")]
AsJson = Annotated[bool, output("Print the result as JSON.", "--json")]
Quiet = Annotated[bool, output("Show no progress.", "--quiet", "-q")]


def check_concept_arguments(
    names: Sequence[str],
    *,
    text: str | None = None,
    label: str | None = None,
    positive: str | None = None,
    ignore: Sequence[str] = (),
    **_: object,
) -> None:
    """Check names, files and columns before torch is loaded; the arguments are those of `concept_from_argument`.

    Raises:
        BadInput: a concept does not exist, or its file has no texts or labels.
    """
    from ontogeny.data.concept_sources import check_concept_source

    for name in names:
        check_concept_source(name, text=text, label=label, positive=positive, ignore=ignore)


def check_plugins(folder: str, names: Sequence[str], *, defining: str | None = None) -> None:
    """Raise BadInput if one of the names is not a plug-in of the folder, without importing any; `defining` is that of `check_plugin`."""
    from ontogeny.plugins import check_plugin

    for name in names:
        check_plugin(folder, name, defining=defining)


CHOICES: Mapping[str, tuple[str, ...]] = {
    "set of tokens": ("all", "prompt", "generated", "last"),
    "aim": ("auto", "right", "positive"),
    "editing method": ("rome", "memit", "alphaedit", "pmet"),
    "scorer": ("lexicon", "classifier"),
    "length of a vector": ("target", "source"),
    "scale rule": ("unit", "std", "gap"),
    "size": ("small", "demo"),
    "stage": ("base", "sft", "dpo"),
    "pairing": ("auto", "recall", "same_object", "one_span"),
}
"""Names that an option can have, by kind; a copy of those in the library, whose modules load torch. A test compares them."""


def check_choices(kind: str, names: Sequence[str]) -> None:
    """Raise BadInput if one of the names is not among `CHOICES`."""
    for name in names:
        if name not in CHOICES[kind]:
            raise unknown_name(kind, name, CHOICES[kind])


def concept_from_argument(
    name: str,
    *,
    position: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    template: bool | str = False,
    text: str | None = None,
    label: str | None = None,
    positive: str | None = None,
    ignore: Sequence[str] = (),
) -> "Concept":
    """The concept in a file or data set, or else the concept plug-in of this name.

    Args:
        name: Path of a concept file, or name of a plug-in. A folder of that name is ignored, unless it is a saved data set.
        text: Column of the texts in a file.
        label: Column of the labels in a file.
        positive: Label of the positive class in a file.
        ignore: Columns of a file that are left out.
        template: none, own, a file or a text, for a concept that has no template of its own.

    Raises:
        BadInput: neither exists, or the file is not a valid concept.
    """
    from ontogeny.data.open_concept import load_concept

    return load_concept(
        name,
        position=position,
        limit=limit,
        seed=seed,
        template=template,
        text=text,
        label=label,
        positive=positive,
        ignore=ignore,
    )


def direction_from_argument(text: str, site: str | None = None, probe: str = "mass_mean") -> "Direction":
    """The direction in a file, on the Hub (`hub:REPO`), or in a run (`RUN:CONCEPT`)."""
    from ontogeny.storage.directions import direction_from_hub, load_direction

    if text.startswith("hub:"):
        return direction_from_hub(text.removeprefix("hub:"))
    if text.endswith(".safetensors") or ":" not in text:
        return load_direction(text)
    from ontogeny.storage.run import Run

    folder, concept = text.rsplit(":", 1)
    return Run.open(folder).direction(concept, site=site, method=probe)


def read_text_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank; of a table (CSV, TSV, JSONL) its texts.

    Raises:
        BadInput: the file cannot be read, has no column of texts, or is blank.
    """
    if _is_table(path):
        lines = _table_texts(path)
    else:
        from ontogeny.data.tables import decode_text

        try:
            # Not `splitlines`, which also ends a line at marks inside a text, such as U+2028 or a form feed.
            lines = re.split(r"\r\n|\r|\n", decode_text(path.read_bytes(), str(path)))
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}): give a file with one text per line.") from None
    if not any(line.strip() for line in lines):
        raise BadInput(f"{path} contains no text: write one text per line.")
    return [line for line in lines if line.strip()]


def plain_texts(name: str, limit: int | None) -> "PlainTexts | None":
    """The first texts of a text file, or of a table without labels; None for a concept.

    Raises:
        BadInput: the file cannot be read, or holds fewer than two texts.
    """
    from ontogeny.data.plain_texts import PlainTexts
    from ontogeny.data.tables import file_stem, read_table

    path = Path(name)
    if not path.is_file():
        return None
    if _is_table(path):
        columns = set(read_table(path).columns)
        if "text" not in columns or columns & {"label", "target"}:
            return None
    return PlainTexts(file_stem(name), tuple(read_text_lines(path)[:limit]))


def _table_texts(path: Path) -> list[str]:
    """The texts of a table; rows with an empty text are left out."""
    from ontogeny.data.tables import is_empty_word, read_table

    table = read_table(path)
    names = ("text", "statement", "instruction", "prompt", "goal")
    column = next((name for name in names if name in table.columns), None)
    if column is None:
        raise BadInput(f"{path} must have a column {', '.join(names[:-1])} or goal: rename one.")
    texts = []
    for row in table.rows:
        cell = row.cells.get(column)
        if cell is not None and (not isinstance(cell, str) or is_empty_word(cell)):
            raise BadInput(f"{path}, {row.line}: the {column} must be a text, got {cell!r}: correct or remove the row.")
        texts += [] if cell is None else [cell]
    if empty := len(table.rows) - len(texts):
        typer.echo(f"{path}: {empty} of {len(table.rows)} rows have no {column} and are left out.", err=True)
    return texts


def _is_table(path: Path) -> bool:
    from ontogeny.data.tables import is_table_file

    return is_table_file(path)


def neutral_texts(name: str | None) -> list[str]:
    """The texts of a text file, a table, or a concept plug-in."""
    if name is None:
        return []
    path = Path(name)
    if not path.is_file() and "." not in name and "/" not in name:
        return list(dict.fromkeys(concept_from_argument(name).texts))
    lines = read_text_lines(path)
    return list(dict.fromkeys(lines)) if _is_table(path) else [line.strip() for line in lines]


def given_chat_template(template: str | None) -> str:
    """The text of the chat template of `--template`; "" for that of the lineage or the tokenizer.

    Raises:
        BadInput: the template renders no chat.
    """
    from ontogeny.data.templates import is_chat_template, parse_template

    parsed = parse_template(template)
    text = "" if isinstance(parsed, bool) else parsed
    if template not in (None, "own") and not is_chat_template(text):
        raise BadInput(f"`template` must be a chat template in Jinja, got {template!r}: a chat has several turns.")
    return text


def parse_numbers(text: str, option: str, *, whole: bool = False) -> list[float]:
    """Numbers separated by commas.

    Raises:
        BadInput: there is none, one is not finite, or, with `whole`, one is not a whole number from 1.
    """
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(n) and not (whole and (n < 1 or n != int(n))) for n in numbers):
        kind = "whole numbers from 1" if whole else "finite numbers"
        raise BadInput(f"{option} must be {kind}, separated by commas, got {text!r}: write {option} 1,2,4.")
    return numbers


def check_compute(device: str, dtype: str = "float32") -> None:
    """Raise BadInput if the data type is unknown or this machine has no such device."""
    from ontogeny.measurements.settings import DTYPE_NAMES

    if dtype not in DTYPE_NAMES:
        raise unknown_name("dtype", dtype, DTYPE_NAMES)
    if device == "cpu":
        return
    import torch

    from ontogeny.models.multi_gpu import resolve_device

    try:
        torch.empty(0, device=resolve_device(device))
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise BadInput(
            f"the device {device!r} cannot be used ({first}). Choose cpu, or one that this machine has."
        ) from None
