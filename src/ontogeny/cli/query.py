"""`ontogeny query`: SQL over the records of one or several runs."""

import math
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import json_rows, json_text
from ontogeny.cli._streams import raw
from ontogeny.errors import BadInput, escape_control

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

_MOST_ROWS = 60
"""Maximum number of rows on the screen, half of them from each end."""
_MOST_NAME, _LEAST_TEXT = 36, 20
"""Columns up to this width are printed whole on the screen; wider ones are texts, which wrap, and get at least the second."""
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
            print(json_text(json_rows(frame)))
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
    rows = [
        [_format_cell(value).replace("|", "\\|").replace("\n", "<br>") for value in row]
        for row in frame.itertuples(index=False)
    ]
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def _table(frame: "pd.DataFrame", count: int) -> None:
    """Print the rows of a query with `count` rows, all of them or as many from both ends."""
    from rich.console import Console

    names = [_format_cell(name) for name in frame.columns]
    rows = [[_format_cell(value) for value in row] for row in frame.itertuples(index=False)]
    if len(rows) < count:
        rows.insert(len(rows) // 2, ["…"] * len(names))
    if sys.stdout.isatty():
        _print_on_screen(Console(), names, rows)
    else:
        _print_whole(names, rows)
    rest = f", of which {len(frame)} are shown; all: --all, or --format csv" if len(frame) < count else ""
    Console(stderr=True).print(f"{count} rows{rest}", style="dim")


def _print_whole(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a line per row, whole columns aligned, for programs and files; a line break in a cell is written as \\n."""
    table = [names, *([cell.replace("\r", "").replace("\n", "\\n") for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_on_screen(console: "Console", names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in which names are whole and long texts wrap; if the screen is too narrow for that, a block per row."""
    from rich.table import Table
    from rich.text import Text

    widths = [
        max(len(line) for cell in column for line in cell.split("\n")) for column in zip(names, *rows, strict=True)
    ]
    is_text = [width > _MOST_NAME for width in widths]
    least = sum(_LEAST_TEXT if text else width for width, text in zip(widths, is_text, strict=True))
    if least + 3 * len(names) + 1 > console.width:
        width = max(map(len, names), default=0)
        for row in rows:
            console.print(Text("─" * console.width, "dim"))
            grid = Table.grid(padding=(0, 2))
            grid.add_column(min_width=width, no_wrap=True)
            grid.add_column(overflow="fold")
            for name, cell in zip(names, row, strict=True):
                grid.add_row(Text(name, "bold"), Text(cell))
            console.print(grid)
        return
    table = Table()
    for name, width, text in zip(names, widths, is_text, strict=True):
        table.add_column(
            Text(name),
            no_wrap=not text,
            min_width=_LEAST_TEXT if text else width,
            overflow="fold" if text else "ellipsis",
        )
    for row in rows:
        table.add_row(*map(Text, row))  # a bracket in a name is not markup
    console.print(table)


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
