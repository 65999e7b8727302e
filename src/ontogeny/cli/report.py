"""`ontogeny report`: a run directory as one static HTML file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg

if TYPE_CHECKING:
    from ontogeny.storage.run import Run


def report_command(
    run: arg.RunArgument,
    out: Annotated[
        Path | None, arg.output("HTML file. Default: report.html in the run directory.", "--out", "-o")
    ] = None,
) -> None:
    """Write the report of a run as one HTML file: findings, warnings and all views. It needs no network."""
    from ontogeny.storage.run import Run

    typer.echo(write_run_report(Run.open(run), out or run / "report.html"))


def write_run_report(run: "Run", out: Path) -> Path:
    """Write the report of a run, with the total cost of its sessions."""
    from ontogeny.findings.selection import RecordSource
    from ontogeny.report.html import write_report
    from ontogeny.storage.files import disk_errors
    from ontogeny.storage.run import check_output

    check_output(out)
    about = run.about
    source = RecordSource(run.query, about)
    with disk_errors(out):
        return write_report(source, about | {"ledger": ledger_totals(run.ledger())}, out)


def ledger_totals(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Cost of a run, summed over its sessions."""
    if studies := [line for line in lines if "loads" in line]:  # a comparison
        loads = sum(sum(line["loads"].values()) for line in studies)
        return {"sides": len(studies), "loads": loads, "seconds": round(sum(line["elapsed"] for line in studies), 1)}
    counted = [line for line in lines if "forwards" in line]
    totals: dict[str, float] = {
        key: sum(line[key] for line in counted) for key in ("forwards", "tokens", "real_tokens")
    }
    return totals | {
        "visits": len(counted),
        "seconds": round(sum(sum(line["seconds"].values()) for line in counted), 1),
    }
