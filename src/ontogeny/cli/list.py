"""`ontogeny list`: list plug-ins by folder."""

from typing import Annotated

import typer

from ontogeny import plugins
from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import print_output

_FOLDERS = {folder.rpartition("/")[2]: folder for folder in plugins.PLUGIN_FOLDERS}


def _public_runs() -> dict[str, str]:
    """Size, stages and gaps of each run that a name opens."""
    from ontogeny.lineage.manifest import load_manifest, packaged_manifests

    lines = {}
    for name, path in packaged_manifests().items():
        manifest = load_manifest(path)
        stages = [stage.name for stage in manifest.stages]
        listed = " → ".join(stages) if len(stages) < 8 else f"{stages[0]} … {stages[-1]}"
        gap = "; not all of it verified" if any(stage.unverified for stage in manifest.stages) else ""
        lines[name] = (
            f"{manifest.summary} [{manifest.parameters}, {manifest.gigabytes:g} GB a checkpoint; stages: {listed}{gap}]"
        )
    return lines


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
    if "suites" in entries:
        entries["public runs, opened by name"] = _public_runs()
    lines = []
    for f, summaries in entries.items():
        width = max(map(len, summaries), default=0)
        lines += [] if folder and len(entries) == 1 else [typer.style(f, bold=True)]
        lines += [f"  {name:<{width}}  {summary}" for name, summary in summaries.items()]
        lines += [] if summaries else [f"  (none yet; docs/ has a recipe for adding to {f})"]
    print_output(entries, lines, as_json=as_json)
