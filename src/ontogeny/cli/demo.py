"""`ontogeny demo`: train a small model in three stages, trace it and write the report; needs no network, takes minutes."""

import time
from pathlib import Path
from typing import Annotated

import typer

from ontogeny.cli import _arguments as arg

_DEMO_CONCEPTS = ("truth", "forbidden", "region", "age", "courtesy", "register")
"""Concepts of the nursery: register, which the words alone reveal (a positive control), and five which they do not."""


def demo_command(
    out: Annotated[
        Path, arg.output("Folder of the model, the concepts, the trace and the report.", "--out", "-o")
    ] = Path("runs/demo"),
    quiet: arg.Quiet = False,
) -> None:
    """Train a small model (base, SFT, DPO) in a generated world, trace its concepts and write the report. Resumes if interrupted."""
    from rich.console import Console

    console, start = Console(highlight=False), time.perf_counter()
    console.print(
        "[bold]1/3[/bold] training a small GPT-NeoX in the nursery: a book of facts, an island's myths, then questions and refusals"
    )
    from ontogeny.cli._progress import progress_bar, stage_bars
    from ontogeny.training.toy_models.in_world import train_toy_model

    with stage_bars(quiet=quiet) as on_stage:
        lineage = train_toy_model(out, "demo", on_stage=on_stage)
    from ontogeny.training.toy_models.world_checks import check_toy_model

    for figure in check_toy_model(out):
        if figure.goal is not None:
            console.print(f"    {figure.stage:4} {figure.name:24} {figure.value:6.1%}")
    console.print(f"    {time.perf_counter() - start:.0f} s")

    files = [out / "concepts" / f"{name}.jsonl" for name in _DEMO_CONCEPTS]
    console.print(f"[bold]2/3[/bold] tracing {len(files)} concepts through its checkpoints")
    from ontogeny.cli.report import write_run_report
    from ontogeny.cli.trace import trace_request
    from ontogeny.data.concept import Concept
    from ontogeny.findings.selection import FINDING_ROWS, RecordSource
    from ontogeny.jobs.trace.finished import write_stamp
    from ontogeny.jobs.trace.trace import trace
    from ontogeny.lineage import Lineage
    from ontogeny.measurements.settings import TraceSettings
    from ontogeny.report.terminal import print_summary

    settings = TraceSettings(planes=6)
    again = f"ontogeny trace {lineage} {' '.join(f'-c {path}' for path in files)} --planes 6 --out {out / 'trace'}"
    with progress_bar(quiet=quiet) as watch:
        concepts, checkpoints = [Concept.from_file(path) for path in files], Lineage.open(lineage)
        run = trace(checkpoints, concepts, out / "trace", settings, command=again, on_progress=watch)
    # After the trace, since the last checkpoint was written a moment before it, by this command itself.
    write_stamp(run, trace_request(checkpoints, [str(path) for path in files], settings))
    print_summary(RecordSource(run.query, run.about).rows(FINDING_ROWS), console)

    console.print("[bold]3/3[/bold] writing the report")
    path = write_run_report(run, out / "report.html")
    console.print(f"    {time.perf_counter() - start:.0f} s in all. The same trace by hand: {again}", soft_wrap=True)
    typer.echo(f"report: {path}")
