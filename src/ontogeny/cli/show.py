"""`ontogeny show`: draw one view of a run, or of several runs together."""

from pathlib import Path
from typing import Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.errors import BadInput


def show_command(
    args: Annotated[
        list[str],
        typer.Argument(metavar="RUN [RUN …] VIEW", help="Run directories, then a view; see `ontogeny list views`."),
    ],
    out: Annotated[
        Path | None,
        arg.output("File: .png, .svg, .html or .json. Default: VIEW.png in the (first) run directory.", "--out", "-o"),
    ] = None,
) -> None:
    """Draw one view of a run, or of several runs together."""
    from ontogeny.storage.files import disk_errors
    from ontogeny.storage.run import Run, check_output, open_runs
    from ontogeny.views import save_chart

    if len(args) < 2:
        raise BadInput("a picture needs a run directory and a view. For example: ontogeny show runs/mine emergence.")
    *folders, view = args
    target = out or Path(folders[0]) / f"{view}.png"
    check_output(target)
    chart = Run.open(folders[0]).show(view) if len(folders) == 1 else open_runs(folders).show(view)
    with disk_errors(target):
        save_chart(chart, target)
    typer.echo(target)
