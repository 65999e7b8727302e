"""Pages of the site that are made from the code: the gallery from the views, the reference from the commands and the public names."""

import contextlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GROUPS = {
    "Models and texts": "load_model Model load_concept Concept Example Answer Lineage Checkpoint Stage",
    "Reading": "capture Activations fit_probe FittedProbe read TokenScores load_gauges GaugePack Site",
    "Steering": "steer Edit Add Ablate Cap Clamp Erase Patch RankOne Reweight SplitSoftmax Zero Direction",
    "Jobs over a lineage": "trace evaluate transfer compare monitor lens drift embedding_geometry audit read_checkpoints",
    "While it trains": "TraceCallback Watcher doctor Alert AlertSettings",
    "Settings": "TraceSettings EvaluationSettings TransferSettings LensSettings DriftSettings GeometrySettings StudyInputs ModelOptions",
    "Results": "Run open_run open_runs Record",
    "Everything else": "list_plugins BadInput",
}
"""Public names by subject, as in the docstring of the package."""


def gallery_entries() -> dict[str, dict[str, str]]:
    """The question that each view answers and the line that draws it, from gallery.toml."""
    entries: dict[str, dict[str, str]] = tomllib.loads((HERE / "gallery.toml").read_text(encoding="utf-8"))
    return entries


def write(folder: Path, *, run: str | None = None) -> None:
    """Write the pages.

    Args:
        folder: Folder of the generated pages, replaced.
        run: Folder of `ontogeny demo`, from which the pictures are drawn; none without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_pictures(Path(run) / "trace", folder / "pictures") if run else set()
    (folder / "gallery.md").write_text("\n".join(_gallery(pictures)) + "\n", encoding="utf-8")
    (folder / "commands.md").write_text("\n".join(_commands()) + "\n", encoding="utf-8")
    (folder / "python.md").write_text("\n".join(_python()) + "\n", encoding="utf-8")


def draw_pictures(run: Path, folder: Path) -> set[str]:
    """Draw every view that the run has rows for, as SVG; returns their names."""
    import ontogeny
    from ontogeny import views

    folder.mkdir(parents=True, exist_ok=True)
    opened, drawn = ontogeny.open_run(run), set()
    for view in views.load_views():
        path = folder / f"{view.name}.svg"
        with contextlib.suppress(ontogeny.BadInput):
            chart = opened.show(view.name)
            if views.empty_reason(chart) is None:
                views.save_chart(chart, path)
                drawn.add(view.name)
    return drawn


def _gallery(pictures: set[str]) -> Iterator[str]:
    from ontogeny import views

    yield "# Gallery\n"
    yield "Every view: the question it answers, the line that draws it, and its picture from the demo run where that has the rows.\n"
    entries = gallery_entries()
    for view in views.load_views():
        entry = entries[view.name]
        yield f"## {view.title}\n\n**{entry['question']}**\n"
        yield f"```python\n{entry.get('line', f'run.show({view.name!r})')}\n```\n"
        if view.name in pictures:
            yield f"```{{image}} pictures/{view.name}.svg\n:alt: {view.title}\n```\n"
        else:
            yield f"The demo run has no rows for it: {entry.get('rows', 'they come from `ontogeny trace`')}.\n"
        yield f"{view.caption}\n"


def _commands() -> Iterator[str]:
    """Help of each command, from its parameters."""
    import typer

    from ontogeny.cli import app

    yield "# Commands\n"
    yield "`ontogeny COMMAND --help` prints the same in a terminal.\n"
    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        yield f"## ontogeny {name}\n\n{(command.help or '').strip()}\n"
        if hasattr(command, "commands"):
            for inner, sub in sorted(command.commands.items()):
                yield f"### ontogeny {name} {inner}\n\n{(sub.help or '').strip()}\n"
                yield from _parameters(sub)
        else:
            yield from _parameters(command)


def _parameters(command: Any) -> Iterator[str]:
    shown = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
    if not shown:
        return
    yield "| option | meaning | default |\n|---|---|---|"
    for parameter in shown:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = f"`{parameter.name.upper()}`"
        help_text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
        default = parameter.default
        known = isinstance(default, str | int | float) and not isinstance(default, bool) and default != ""
        yield f"| {names} | {help_text} | {f'`{default}`' if known else ''} |"
    yield ""


def _python() -> Iterator[str]:
    yield "# Python\n"
    yield "Names of `import ontogeny`. They are imported on first use, so the import loads neither torch nor transformers.\n"
    import inspect

    import ontogeny

    for title, names in GROUPS.items():
        yield f"## {title}\n"
        for name in names.split():
            thing = getattr(ontogeny, name)
            kind, members = ("autoclass", "\n:members:") if inspect.isclass(thing) else ("autofunction", "")
            place = f"{thing.__module__}.{thing.__qualname__}"
            yield f"```{{eval-rst}}\n.. {kind}:: {place}\n" + ("   :members:\n" if members else "") + "```\n"
