"""`ontogeny query`: SQL over the records of one or several runs."""

import math
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._streams import raw
from ontogeny.errors import BadInput, escape_control

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 60
"""Maximum number of rows on the screen, half of them from each end."""
_FORMATS = ("table", "csv", "json", "markdown")


def query_command(
    args: Annotated[
        list[str],
        typer.Argument(metavar="RUN [RUN …] SQL", help="Run directories, then the query over the view `records`."),
    ],
    format: Annotated[str, arg.output("table, csv, json or markdown.", "--format", "-f")] = "table",
    show_all: Annotated[bool, arg.output("Print all rows of a long table.", "--all")] = False,
    as_json: arg.AsJson = False,
) -> None:
    """Query the records of one or several runs in SQL; the column `run` names the run."""
    from ontogeny.storage.run import open_runs

    if len(args) < 2:
        raise BadInput(
            'a query needs a run directory and SQL. For example: ontogeny query runs/mine "select * from records limit 5".'
        )
    if format not in _FORMATS:
        raise BadInput(f"--format must be one of {', '.join(_FORMATS)}, got {format!r}.")
    *folders, sql = args
    runs = open_runs(folders)
    format = "json" if as_json else format
    if format == "table" and not show_all:
        _table(*runs.query_ends(sql, _MOST_ROWS // 2))
        return
    frame = runs.query(sql)
    match format:
        case "csv":
            _csv_cells(frame).to_csv(sys.stdout if sys.stdout.isatty() else raw(sys.stdout), index=False)
        case "json":
            print(frame.to_json(orient="records", indent=2))
        case "markdown":
            print(_markdown(frame))
        case _:
            _table(frame, len(frame))


def _csv_cells(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The table with an apostrophe before each text that a spreadsheet would run as a formula."""
    formula = re.compile(r"[=+\-@\t\r]")
    frame = frame.copy(deep=False)
    for i, kind in enumerate(map(str, frame.dtypes)):
        if kind.startswith(("object", "str")):
            cells = frame.iloc[:, i].tolist()
            frame.isetitem(i, [f"'{v}" if isinstance(v, str) and formula.match(v) else v for v in cells])
    return frame


def _markdown(frame: "pd.DataFrame") -> str:
    head = "| " + " | ".join(map(str, frame.columns)) + " |"
    rule = "|" + "---|" * len(frame.columns)
    rows = [[_format_cell(value).replace("|", "\\|") for value in row] for row in frame.itertuples(index=False)]
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def _table(frame: "pd.DataFrame", count: int) -> None:
    """Print the rows of a query with `count` rows, all of them or as many from both ends."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*map(_format_cell, frame.columns))
    for i, row in enumerate(frame.itertuples(index=False)):
        if len(frame) < count and 2 * i == len(frame):
            table.add_row(*("…" for _ in row))
        table.add_row(*(Text(_format_cell(value)) for value in row))  # a bracket in a name is no markup
    Console().print(table)
    rest = f", of which {len(frame)} are shown; all: --all, or --format csv" if len(frame) < count else ""
    Console(stderr=True).print(f"{count} rows{rest}", style="dim")


def _format_cell(value: object) -> str:
    """Text of a cell: empty if the value is missing, as in CSV; a step with all its digits."""
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if not isinstance(value, float):
        return escape_control(str(value))
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 2**53 else f"{value:.4g}"
