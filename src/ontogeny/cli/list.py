"""`ontogeny list`: list plug-ins by folder."""

from typing import Annotated

import typer

from ontogeny import plugins
from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import print_output

_FOLDERS = {folder.rpartition("/")[2]: folder for folder in plugins.PLUGIN_FOLDERS}


def list_command(
    folder: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(_FOLDERS)}; default: all.",
            autocompletion=lambda incomplete: [name for name in _FOLDERS if name.startswith(incomplete)],
        ),
    ] = None,
    as_json: arg.AsJson = False,
) -> None:
    """List plug-ins such as concepts, probes, steering methods, suites or views, with a line on each."""
    folders = [_FOLDERS.get(folder, folder)] if folder else list(plugins.PLUGIN_FOLDERS)
    entries = {f: {name: plugins.plugin_summary(f, name) for name in plugins.list_plugins(f)} for f in folders}
    lines = []
    for f, summaries in entries.items():
        width = max(map(len, summaries), default=0)
        lines += [] if folder else [typer.style(f, bold=True)]
        lines += [f"  {name:<{width}}  {summary}" for name, summary in summaries.items()]
        lines += [] if summaries else [f"  (none yet; docs/ has a recipe for adding to {f})"]
    print_output(entries, lines, as_json=as_json)
