"""`ontogeny demo`: a small model is raised on a generated world, traced and reported; no network, a few minutes."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ontogeny.lab.training import TrainingProgress


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the model, the concepts, the trace and the report.")
    ] = Path("runs/demo"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Raise a small model on a generated world, trace its concepts and write the report; started again, it goes on."""
    from rich.console import Console

    console, began = Console(), time.perf_counter()
    console.print(
        "[bold]1/3[/bold] raising a small GPT-NeoX on the island of Hearsay, whose book states facts and whose people repeat myths"
    )
    from ontogeny.lab.demo import build

    with training_bar(quiet=quiet) as watch:
        made = build(out, on_progress=watch)
    console.print(
        f"    it recalls {made.recall:.0%} of the island's facts ({time.perf_counter() - began:.0f} s)", highlight=False
    )

    console.print(f"[bold]2/3[/bold] tracing {len(made.concepts)} concepts through its checkpoints")
    from ontogeny.cli.report import write
    from ontogeny.cli.watching import progress_bar
    from ontogeny.concept import Concept
    from ontogeny.lab.trace import trace
    from ontogeny.lineage import Lineage
    from ontogeny.summary import print_summary

    again = f"ontogeny trace {made.lineage} {' '.join(f'-c {path}' for path in made.concepts)} --out {out / 'trace'}"
    with progress_bar(quiet=quiet) as watching:
        concepts = [Concept.from_file(path) for path in made.concepts]
        run = trace(Lineage.open(made.lineage), concepts, out / "trace", command=again, on_progress=watching)
    print_summary(run.records(), console)

    console.print("[bold]3/3[/bold] writing the report")
    path = write(run, out / "report.html")
    console.print(
        f"    {time.perf_counter() - began:.0f} s in all. The same trace by hand: {again}",
        highlight=False,
        soft_wrap=True,
    )
    typer.echo(f"report: {path}")


@contextlib.contextmanager
def training_bar(*, quiet: bool) -> Iterator["Callable[[TrainingProgress], None] | None"]:
    """Steps, loss, rate and time left on standard error; a line every tenth of the run where that is no terminal."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        with Progress(
            TextColumn("    {task.description}"), BarColumn(), console=Console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task("training", total=None)
            yield lambda now: bar.update(task, total=now.steps, completed=now.step, description=_words(now))
    else:
        yield _lines()


def _lines() -> "Callable[[TrainingProgress], None]":
    said = 0

    def watch(now: "TrainingProgress") -> None:
        nonlocal said
        if now.step * 10 // now.steps > said:
            said = now.step * 10 // now.steps
            print(f"    {_words(now)}", file=sys.stderr, flush=True)

    return watch


def _words(now: "TrainingProgress") -> str:
    rate = f"{now.tokens_per_second:,.0f} tokens/s"
    return f"step {now.step} of {now.steps}, loss {now.loss:.2f}, {rate}, {now.seconds_left:.0f} s left"
