"""`ontogeny dashboard`: runs in a browser, from one process on this machine; needs no network."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._streams import raw


def dashboard_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN …]", help="Run directories.")],
    port: Annotated[int, arg.output("Port on this machine; 0 for any that is free.", min=0, max=65535)] = 8017,
    no_browser: Annotated[bool, arg.output("Print the address, and open no browser.", "--no-browser")] = False,
) -> None:
    """Show runs in a browser: atlas, all views, records. The address holds a token and is reachable from this machine only."""
    from ontogeny.dashboard.server import make_server
    from ontogeny.dashboard.shown_run import ShownRuns

    server = make_server(ShownRuns(runs), port=port)

    def announce() -> None:
        # Commands print no token. This one is made for the address, and ends with the command.
        print(f"dashboard: {server.address}", file=raw(sys.stdout), flush=True)
        typer.echo("Ctrl-C ends it.", err=True)
        if not no_browser:
            import webbrowser

            webbrowser.open(server.address)

    server.serve(announce)
