"""`ontogeny audit`: are these checkpoints what they say they are?"""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ontogeny.jobs.audit.audit import Audit


def audit_command(
    lineage: Annotated[
        str, typer.Argument(help="Hub repository, folder of checkpoints, single model, or lineage.toml.")
    ],
    steps: Annotated[
        str, typer.Option(help="all, log, log:8, last, every:10, a list 0,1000 or a range 1000-5000.")
    ] = "all",
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read the numbers of checkpoints on this machine: NaN, jumps of norms.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also accept pytorch_model.bin (weights only).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Audit checkpoints before any science: twins, stale branches, holes, broken shards, drift. Exit code 1 on faults."""
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.audit import audit as job
    from ontogeny.lineage import Lineage

    chosen = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)
    with progress_bar(quiet=quiet or as_json) as watch:
        made = job.audit(chosen, deep=deep, allow_pickle=allow_pickle, watch=watch)
    if as_json:
        typer.echo(json.dumps(job.audit_as_dict(made), indent=2))
    else:
        _print_audit(made)
    if made.faults:
        raise typer.Exit(1)


def _print_audit(made: "Audit") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if made.findings:
        table = Table("", "kind", "what", "next", box=None, padding=(0, 2, 0, 0))
        for found in made.findings:
            named = (
                found.what
                if any(n in found.what for n in found.checkpoints)
                else f"{found.checkpoints[0]}: {found.what}"
            )
            style = "red" if found.severity == "fault" else "yellow"
            # Plain text: a bracket in a name is no markup.
            table.add_row(Text(found.severity, style), Text(found.kind), Text(named), Text(found.next))
        console.print(table)
        console.print()
    console.print(Text(made.sentence))
