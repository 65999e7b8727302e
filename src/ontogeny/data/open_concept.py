"""Open a concept by its name, from a file, or from a data frame."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.data.concept_sources import names_concept_file
from ontogeny.data.positions import Position
from ontogeny.data.templates import Template, parse_template
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    import pandas

    ConceptSource = Concept | str | Path | pandas.DataFrame
    """A concept, the name of a plug-in, a file, or a data frame."""


def load_concept(
    source: "ConceptSource",
    *,
    name: str | None = None,
    position: Position | str | None = None,
    limit: int | None = None,
    seed: int = 0,
    template: Template = False,
    text: str | None = None,
    label: str | None = None,
    positive: str | None = None,
    ignore: Sequence[str] = (),
) -> Concept:
    """The concept in a file, a data set or a data frame, or else the concept plug-in of this name.

    Args:
        source: Name of a plug-in (`truth_cities`), a file (CSV, TSV, JSON, JSONL, Parquet), a folder of `datasets`, a data set of the Hub
            (OWNER/NAME[:SPLIT]), a data frame of pandas or polars, or a `Concept`. A folder with the name of a plug-in is ignored, unless
            it is a saved data set.
        name: Name of the concept; by default that of the file or plug-in, and of a data frame its `attrs["name"]` or "frame".
        position: Read position, such as `mean`; by default that of the concept, else the last token.
        limit: Maximum number of examples; groups are kept whole.
        seed: Draws them, and the examples of a plug-in that generates its texts.
        template: The template of the texts, for a concept that has none of its own.
        text, label: Names of columns that differ from these.
        positive: Label of the positive class.
        ignore: Columns to leave out.

    Raises:
        BadInput: there is no such file or plug-in, the table has no texts or labels, or the examples are not a concept.
    """
    where = Position.parse(position) if isinstance(position, str) else position
    if isinstance(source, Concept):
        concept = replace(source, position=where or source.position)
    elif isinstance(source, str | Path) and not names_concept_file(source):
        concept = plugins.load_plugin("concepts", str(source)).concept(seed)
        concept = replace(concept, position=where or concept.position)
    elif isinstance(source, str | Path):
        concept = Concept.from_file(source, position=where, text=text, label=label, positive=positive, ignore=ignore)
    else:
        frame = _pandas_frame(source)
        called = str(frame.attrs.get("name", "frame"))
        concept = Concept.from_frame(
            frame, name=name or called, position=where, text=text, label=label, positive=positive, ignore=ignore
        )
    concept = replace(concept, name=name or concept.name, template=concept.template or parse_template(template))
    return concept if limit is None else concept.limited(limit, seed)


def _pandas_frame(source: Any) -> "pandas.DataFrame":
    import pandas

    if isinstance(source, pandas.DataFrame):
        return source
    if hasattr(source, "__arrow_c_stream__") and not hasattr(source, "columns") and not hasattr(source, "to_pandas"):
        raise BadInput(
            f"a concept must be a data frame with the columns text and label, got a {type(source).__name__}: give the whole frame."
        )
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "to_pandas"):  # polars, Arrow, datasets
        rows = source.to_dicts() if hasattr(source, "to_dicts") else source.to_pandas()
        return pandas.DataFrame(rows)
    raise BadInput(
        f"a concept must be a name, a file, a data frame or a `Concept`, got {type(source).__name__}: make one with Concept.from_pairs or "
        "Concept.from_frame."
    )
