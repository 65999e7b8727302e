"""`ontogeny demo`: a small model is raised in three stages on a generated world, traced and reported; no network, a few minutes."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ontogeny.cli._progress import TrainingProgressCallback
    from ontogeny.training.toy_models.in_world import ToyStage


_DEMO_CONCEPTS = ("truth", "forbidden", "region", "age", "courtesy", "register")
"""Of the nursery's concepts: one that the words give away (register, the positive control) and five that they do not."""


def demo_command(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the model, the concepts, the trace and the report.")
    ] = Path("runs/demo"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Raise a small model (base, SFT, DPO) on a generated world, trace its concepts and write the report; started again, it goes on."""
    from rich.console import Console

    console, began = Console(highlight=False), time.perf_counter()
    console.print(
        "[bold]1/3[/bold] raising a small GPT-NeoX in the nursery: a book of facts, an island's myths, then questions and refusals"
    )
    lineage = _train_demo_model(out, quiet)
    from ontogeny.training.toy_models.world_checks import check_toy_model

    for figure in check_toy_model(out):
        if figure.goal is not None:
            console.print(f"    {figure.stage:4} {figure.name:24} {figure.value:6.1%}")
    console.print(f"    {time.perf_counter() - began:.0f} s")

    files = [out / "concepts" / f"{name}.jsonl" for name in _DEMO_CONCEPTS]
    console.print(f"[bold]2/3[/bold] tracing {len(files)} concepts through its checkpoints")
    from ontogeny.cli._progress import progress_bar
    from ontogeny.cli.report import write_run_report
    from ontogeny.data.concept import Concept
    from ontogeny.findings.timeline import order_like_run
    from ontogeny.jobs.trace.trace import trace
    from ontogeny.lineage import Lineage
    from ontogeny.report.terminal import print_summary

    again = f"ontogeny trace {lineage} {' '.join(f'-c {path}' for path in files)} --out {out / 'trace'}"
    with progress_bar(quiet=quiet) as watching:
        concepts = [Concept.from_file(path) for path in files]
        run = trace(Lineage.open(lineage), concepts, out / "trace", command=again, on_progress=watching)
    print_summary(order_like_run(run.records(), run.about), console)

    console.print("[bold]3/3[/bold] writing the report")
    path = write_run_report(run, out / "report.html")
    console.print(f"    {time.perf_counter() - began:.0f} s in all. The same trace by hand: {again}", soft_wrap=True)
    typer.echo(f"report: {path}")


def _train_demo_model(out: Path, quiet: bool) -> Path:
    import contextlib

    from ontogeny.cli._progress import training_bar
    from ontogeny.training.toy_models.in_world import train_toy_model

    with contextlib.ExitStack() as bars:

        def begin(stage: str, how: "ToyStage") -> "TrainingProgressCallback | None":
            if not quiet:
                typer.echo(f"    {stage}: {how.training.steps:,} steps", err=True)
            return bars.enter_context(training_bar(quiet=quiet))

        return train_toy_model(out, "demo", on_stage=begin)
