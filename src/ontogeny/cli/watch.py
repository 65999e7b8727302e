"""`ontogeny watch`: trace each checkpoint of a training as it is saved."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import print_failures, print_output
from ontogeny.cli._streams import raw
from ontogeny.errors import BadInput, escape_control

if TYPE_CHECKING:
    from ontogeny.jobs.progress import ProgressCallback
    from ontogeny.jobs.watch.follow import FollowedRun


def watch_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR [DIR …]", help="Output folders of Trainers, with checkpoint-N inside.")
    ],
    concept: arg.ConceptNames,
    out: Annotated[Path, arg.output("Run directory; of several folders, the folder of their runs.", "--out", "-o")],
    sites: Annotated[str, arg.measure("Sites to read, as in `ontogeny trace`.")] = "resid,head",
    probes: Annotated[
        str, arg.measure("Probes, separated by commas; logistic chooses the best site.")
    ] = "logistic,mass_mean,pca,leace",
    stage: Annotated[str, arg.measure("Name of the stage, as in a later trace.")] = "pretrain",
    position: Annotated[str | None, arg.texts("Tokens to read: last, mean, …; default: the file's, or last.")] = None,
    limit: arg.Limit = None,
    template: arg.TemplateOption = "none",
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    interval: Annotated[float, arg.compute("Seconds between two looks at the folders.")] = 10.0,
    patience: Annotated[
        float | None, arg.compute("End after this many seconds without a new checkpoint. Default: never.")
    ] = None,
    once: Annotated[bool, arg.compute("Trace what is complete now, and end.", "--once")] = False,
    on_alert: Annotated[
        list[str] | None,
        arg.output(
            "Where alerts go: terminal, log, trackio, wandb, command:…, or an address (POST); repeat. Default: terminal.",
            "--on-alert",
        ),
    ] = None,
    port: Annotated[int, arg.output("Port of the live page on this machine; 0: a free one.", min=0)] = 0,
    page: Annotated[bool, arg.output("Serve a live page on this machine.")] = True,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Trace each checkpoint of a training as it is saved, with alerts, a live table and a live page."""
    from ontogeny.alerts.detection import AlertSettings
    from ontogeny.alerts.transports import alert_sinks, wants_save
    from ontogeny.jobs.watch.follow import FollowOptions, follow
    from ontogeny.measurements.settings import TraceSettings

    settings = TraceSettings(
        sites=sites, fits=tuple(name.strip() for name in probes.split(",") if name.strip()), seed=seed, dtype=dtype
    )
    if wants_save(on_alert or []):
        raise BadInput("--on-alert must not be save here: only the callback of a Trainer can ask it to save.")
    sinks = alert_sinks(on_alert or ["terminal"])

    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions

    concepts = [
        arg.concept_from_argument(name, position=position, limit=limit, seed=seed, template=template)
        for name in concept
    ]
    options = FollowOptions(
        stage=stage,
        model=ModelOptions(device, dtype, tokenizer, allow_pickle),
        alerts=AlertSettings(),
        sinks=sinks,
        interval=interval,
        patience=patience,
        once=once,
        command=command_line(),
    )
    last: Sequence[FollowedRun] = ()
    with _shown(page=page and not once, port=port, quiet=quiet or as_json) as (show, on_progress):
        for last in follow(folders, concepts, out, settings, options=options, on_progress=on_progress):
            show(last)
    content = [_content(run) for run in last]
    print_output(content, [_line(run) for run in last], as_json=as_json)
    if not as_json:
        for run in last:
            print_failures("not traced:", [vars(failure) for failure in run.failures])
    if any(run.failures for run in last):
        raise typer.Exit(1)


@contextlib.contextmanager
def _shown(
    *, page: bool, port: int, quiet: bool
) -> "Iterator[tuple[Callable[[Sequence[FollowedRun]], None], ProgressCallback]]":
    """Display of the runs after each look, and of the progress of a trace: a live table in a terminal, else a line per change."""
    from ontogeny.jobs.progress import ignore_progress
    from ontogeny.report.live_page import LiveChanges, live_page

    changes = LiveChanges()
    with contextlib.ExitStack() as open_things:
        if page:
            address = open_things.enter_context(live_page(changes, port))
            typer.echo(f"live page: {address}", err=True)
        if quiet or not sys.stderr.isatty():

            def show(runs: "Sequence[FollowedRun]") -> None:
                changes.update(runs)
                for run in runs:
                    if run.changed and not quiet:
                        typer.echo(escape_control(f"{run.name}: {len(run.done)} traced, {run.activity}"), err=True)

            yield show, ignore_progress
            return
        from rich.console import Console
        from rich.live import Live

        from ontogeny.report.live_table import live_table

        console = Console(file=raw(sys.stderr))
        live = open_things.enter_context(Live(console=console, auto_refresh=False, transient=True))
        shown: list[Sequence[FollowedRun]] = [()]

        def draw(runs: "Sequence[FollowedRun]") -> None:
            shown[0] = runs
            changes.update(runs)
            live.update(live_table(runs, width=console.width), refresh=True)

        def progress(now: Any) -> None:
            live.update(live_table(shown[0], now.text, console.width), refresh=True)

        yield draw, progress


def _content(run: "FollowedRun") -> dict[str, Any]:
    from ontogeny.alerts.transports import alert_content

    return {
        "run": str(run.run.folder),
        "traced": sorted(run.done),
        "alerts": [alert_content(alert) for alert in run.alerts],
        "failures": [vars(failure) for failure in run.failures],
    }


def _line(run: "FollowedRun") -> str:
    def counted(n: int, noun: str) -> str:
        return f"{n} {noun}" if n == 1 else f"{n} {noun}s"

    traced, alerts = counted(len(run.done), "checkpoint"), counted(len(run.alerts), "alert")
    return f"{run.name}: {traced} traced, {alerts}; {run.run.folder}"
