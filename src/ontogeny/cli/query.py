"""`ontogeny query`: SQL over the records of one or several runs."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "csv", "json", "markdown")


def query(
    args: Annotated[
        list[str],
        typer.Argument(metavar="RUN [RUN …] SQL", help="Run directories, then the query over the view `records`."),
    ],
    format: Annotated[str, typer.Option("--format", "-f", help="table, csv, json or markdown.")] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Ask the records of one or several runs in SQL; the column `run` tells the runs apart."""
    from ontogeny.run import runs

    if len(args) < 2:
        raise BadInput(
            'a query needs a run directory and SQL. For example: ontogeny query runs/mine "select * from records limit 5".'
        )
    if format not in FORMATS:
        raise BadInput(f"no format {format!r}. Choose {', '.join(FORMATS)}.")
    *folders, sql = args
    found = runs(folders).query(sql)
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
    return "\n".join([head, rule, *("| " + " | ".join(map(str, row)) + " |" for row in found.itertuples(index=False))])


def _table(found: "pd.DataFrame") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*map(str, found.columns))
    for row in found.itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    Console().print(table)
    Console(stderr=True).print(f"{len(found)} rows", style="dim")
