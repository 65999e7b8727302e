"""What commands print about a run or a plan, as text and as JSON."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ontogeny.jobs.trace.estimate import TraceEstimate
    from ontogeny.jobs.trace.plan import TracePlan
    from ontogeny.storage.run import Run


def print_estimate(found: "TraceEstimate", job: "TracePlan", console: "Console") -> None:
    """The dry run, a line a quantity."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    about = "" if found.tokens_exact else "about "
    rows = [
        ("checkpoints", f"{found.checkpoints}, of which {found.checkpoints_to_visit} to visit"),
        ("units", f"{found.units} (checkpoint × concept), of which {found.units_to_do} to do"),
        ("concepts", ", ".join(f"{c.name} ({len(c.examples)} examples)" for c in job.concepts)),
        ("model", f"about {_count(found.parameters)} parameters, {format_bytes(found.bytes_to_read)} to read"),
        ("to download", format_bytes(found.bytes_to_download)),
        ("texts", f"{found.texts:,} a checkpoint, {about}{found.tokens:,} tokens"),
        ("forwards", f"{found.forwards:,}"),
        ("time", f"about {format_duration(found.seconds)} on {found.device}, one checkpoint after the other"),
        ("disk", f"about {format_bytes(found.disk_bytes)} in the run directory"),
    ]
    for name, value in rows:
        table.add_row(name, Text(value))  # names of concepts are no markup
    console.print(table)
    for fault in job.faults:
        console.print(Text.assemble(("cannot be traced: ", "red"), f"{fault.checkpoint}: {fault.reason}"))


def run_outcome(run: "Run") -> dict[str, Any]:
    """The outcome of a run for `--json`: scores at the best site, events, warnings, failures, what it cost."""
    import json

    about = run.about
    events = run.records("metric in ('emergence_step', 'loss_step', 'used_step', 'readable_minus_used', 'best_site')")
    last = run.query(
        """select r.concept, r.stage, r.step, r.site, r.method, r.metric, r.value, r.low, r.high, r.n from records r
           join records b on b.metric = 'best_site' and b.concept = r.concept and b.site = r.site and b.method = r.method
           where r.metric in ('auroc', 'r2', 'accuracy') and r.control is null and r.stage is not null
           qualify r.step is not distinct from max(r.step) over (partition by r.concept, r.stage)"""
    )
    return {
        "run": str(run.folder),
        "lineage": about["lineage"]["name"],
        "checkpoints": len(about["lineage"]["checkpoints"]),
        "scores": json.loads(last.to_json(orient="records")),
        "events": json.loads(events.dropna(axis=1, how="all").to_json(orient="records")),
        "warnings": {concept["name"]: concept["warnings"] for concept in about["concepts"]},
        "failures": about["failures"],
    }


def format_bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _count(n: float) -> str:
    return f"{n / 1e9:.1f} G" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.0f} k"


def format_duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
