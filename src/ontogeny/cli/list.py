"""`ontogeny list`: what there is in each plug-in folder."""

import json
from typing import Annotated

import typer

from ontogeny import plugins


def list_command(
    folder: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(plugins.PLUGIN_FOLDERS)}; default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List architectures, concepts, fits, lineages, metrics, views or worlds, with the first line of each."""
    folders = [folder] if folder else list(plugins.PLUGIN_FOLDERS)
    found = {f: {name: plugins.plugin_summary(f, name) for name in plugins.list_plugins(f)} for f in folders}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for f, entries in found.items():
        if not folder:
            typer.secho(f, bold=True)
        width = max(map(len, entries), default=0)
        for name, line in entries.items():
            typer.echo(f"  {name:<{width}}  {line}")
        if not entries:
            typer.echo(f"  (none yet; docs/ has a recipe for adding to {f})")
