"""`ontogeny query`: SQL over the records of one or several runs."""

import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

_FORMATS = ("table", "csv", "json", "markdown")


def query_command(
    args: Annotated[
        list[str],
        typer.Argument(metavar="RUN [RUN …] SQL", help="Run directories, then the query over the view `records`."),
    ],
    format: Annotated[str, typer.Option("--format", "-f", help="table, csv, json or markdown.")] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Ask the records of one or several runs in SQL; the column `run` tells the runs apart."""
    from ontogeny.storage.run import open_runs

    if len(args) < 2:
        raise BadInput(
            'a query needs a run directory and SQL. For example: ontogeny query runs/mine "select * from records limit 5".'
        )
    if format not in _FORMATS:
        raise BadInput(f"no format {format!r}. Choose {', '.join(_FORMATS)}.")
    *folders, sql = args
    found = open_runs(folders).query(sql)
    match "json" if as_json else format:
        case "csv":
            found.to_csv(sys.stdout, index=False)
        case "json":
            print(found.to_json(orient="records", indent=2))
        case "markdown":
            print(_markdown(found))
        case _:
            _table(found)


def _markdown(found: "pd.DataFrame") -> str:
    head = "| " + " | ".join(map(str, found.columns)) + " |"
    rule = "|" + "---|" * len(found.columns)
    rows = [[_format_cell(value).replace("|", "\\|") for value in row] for row in found.itertuples(index=False)]
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in rows)])


def _table(found: "pd.DataFrame") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*map(str, found.columns))
    for row in found.itertuples(index=False):
        table.add_row(*(Text(_format_cell(value)) for value in row))  # a bracket in a name is no markup
    Console().print(table)
    Console(stderr=True).print(f"{len(found)} rows", style="dim")


def _format_cell(value: object) -> str:
    """A cell; what is absent stays empty, as in CSV, and a step is told to its last digit."""
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 2**53 else f"{value:.4g}"
