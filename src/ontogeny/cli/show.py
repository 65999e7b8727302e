"""`ontogeny show`: one view of a run as a picture."""

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    view: Annotated[str, typer.Argument(help="Name of a view; see `ontogeny list views`.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="File ending in .png, .svg, .html or .json; default: VIEW.png in the run directory."
        ),
    ] = None,
) -> None:
    """Draw one view of a run."""
    from ontogeny.run import Run
    from ontogeny.store import disk_errors
    from ontogeny.views import save

    target = out or run / f"{view}.png"
    chart = Run.open(run).show(view)
    with disk_errors(target):
        save(chart, target)
    typer.echo(target)
