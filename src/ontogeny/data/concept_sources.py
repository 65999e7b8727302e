"""Check the source of a concept, a name or a file, without loading torch: a mistyped one is refused at once."""

from collections.abc import Sequence
from pathlib import Path

from ontogeny import plugins
from ontogeny.data.parsing import Columns, check_table
from ontogeny.data.tables import is_saved_dataset, is_table_file, read_table


def names_concept_file(source: str | Path) -> bool:
    """Whether a source is a file or data set, not a plug-in. A folder with the name of a plug-in is none, unless it is a saved data set."""
    path = Path(source)
    return path.is_file() or is_saved_dataset(path) or "/" in str(source) or "." in str(source)


def check_concept_source(
    source: str | Path,
    *,
    text: str | None = None,
    label: str | None = None,
    positive: str | None = None,
    ignore: Sequence[str] = (),
) -> None:
    """Check the name of a plug-in, or the texts and labels of a file. A data set of the Hub is not fetched.

    Raises:
        BadInput: there is no such plug-in or file, or it lacks a column, a text or a label.
    """
    if not names_concept_file(source):
        plugins.check_plugin("concepts", str(source))
    elif Path(source).exists() or is_table_file(Path(source)):
        check_table(read_table(source).without(ignore), Columns(text, label), positive)
