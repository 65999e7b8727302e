"""`ontogeny audit`: check that checkpoints are what they claim to be."""

from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import print_output

if TYPE_CHECKING:
    from ontogeny.jobs.audit.audit import Audit


def audit_command(
    lineage: arg.LineageArgument,
    steps: arg.Steps = "all",
    deep: Annotated[bool, arg.measure("Also read local weights, for NaN and norm jumps.", "--deep")] = False,
    allow_pickle: arg.AllowPickle = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Check checkpoints for duplicates, stale branches, gaps, corrupt shards and config drift. Exit code 1 on faults."""
    from ontogeny.lineage import Lineage

    checkpoints = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.audit import audit as job

    with progress_bar(quiet=quiet or as_json) as watch:
        audit = job.audit(checkpoints, deep=deep, allow_pickle=allow_pickle, watch=watch)
    if as_json:
        print_output(job.audit_as_dict(audit), [], as_json=True)
    else:
        _print_audit(audit)
    if audit.faults:
        raise typer.Exit(1)


def _print_audit(audit: "Audit") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if audit.findings:
        table = Table("", "kind", "what", "next", box=None, padding=(0, 2, 0, 0))
        for finding in audit.findings:
            is_named = any(name in finding.what for name in finding.checkpoints)
            message = finding.what if is_named else f"{finding.checkpoints[0]}: {finding.what}"
            style = "red" if finding.severity == "fault" else "yellow"
            # Plain text: a bracket in a name is not markup.
            table.add_row(Text(finding.severity, style), Text(finding.kind), Text(message), Text(finding.next))
        console.print(table)
        console.print()
    console.print(Text(audit.sentence))
