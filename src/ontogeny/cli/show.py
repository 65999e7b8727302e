"""`ontogeny show`: draw one view of a run, or of several runs together."""

from pathlib import Path
from typing import Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.errors import BadInput


def show_command(
    args: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [RUN …] VIEW",
            help="Run directories, then a view; see `ontogeny list views`.",
            autocompletion=arg.plugin_completion("views"),
        ),
    ],
    concept: Annotated[
        list[str] | None, arg.measure("Concept to draw; repeat. Default: all.", "--concept", "-c")
    ] = None,
    site: Annotated[
        list[str] | None,
        arg.measure("Site (resid.3) or part (attn) to draw; repeat. Default: each concept's best site.", "--site"),
    ] = None,
    stage: Annotated[list[str] | None, arg.measure("Stage to draw; repeat. Default: all.", "--stage")] = None,
    step: Annotated[
        int | None,
        arg.measure("The one checkpoint to draw, such as that of `heads`. Default: all, or the last.", "--step"),
    ] = None,
    width: Annotated[
        str | None, arg.output("Width: 85mm, 3.3in or 600px. The panels are laid out for it.", "--width")
    ] = None,
    height: Annotated[str | None, arg.output("Height: 60mm, 2.4in or 400px.", "--height")] = None,
    out: Annotated[
        Path | None,
        arg.output(
            "File: .png, .svg, .pdf, .html or .json. Default: VIEW.png in the (first) run directory.", "--out", "-o"
        ),
    ] = None,
) -> None:
    """Draw one view of a run, or of several runs together. Without rows for it, exit with code 1."""
    if len(args) < 2:
        raise BadInput("a picture needs a run directory and a view. For example: ontogeny show runs/mine emergence.")
    *folders, view = args
    arg.check_plugins("views", [view])

    from ontogeny.storage.files import disk_errors
    from ontogeny.storage.run import Run, check_output, open_runs

    target = out or Path(folders[0]) / f"{view}.png"
    check_output(target)
    runs = Run.open(folders[0]) if len(folders) == 1 else open_runs(folders)

    from ontogeny.views import empty_reason, save_chart

    chart = runs.show(view, concepts=concept or (), sites=site or (), stages=stage or (), step=step)
    if reason := empty_reason(chart):
        typer.echo(f"ontogeny: the view {view} has nothing to draw: {' '.join(reason.split())}", err=True)
        raise typer.Exit(1)
    with disk_errors(target):
        save_chart(chart, target, width=width, height=height)
    typer.echo(target)
