"""Printing: plans and results as text or JSON, tables of rows, quantities with units."""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ontogeny.cli._command import with_options

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.jobs.trace.estimate import TraceEstimate
    from ontogeny.jobs.trace.plan import TracePlan
    from ontogeny.lineage import Lineage
    from ontogeny.storage.run import Run


def print_output(data: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print the data as JSON, or the lines."""
    if as_json:
        typer.echo(json_text(data))
        return
    for line in lines:
        typer.echo(line)


def json_text(data: Any) -> str:
    """The data as JSON, with every digit of a number; a number that is not finite is null, since JSON has none."""
    return json.dumps(_json_value(data), indent=2, allow_nan=False)


def json_rows(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table, as JSON takes them: NaN is null, coordinates are a dictionary."""
    columns = [_json_value(frame.iloc[:, i].tolist()) for i in range(len(frame.columns))]
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in zip(*columns, strict=True)]


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    if hasattr(value, "tolist"):  # a number or an array of NumPy
        return _json_value(value.tolist())
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    return None if str(value) in ("<NA>", "NaT") else str(value)


def next_command(folder: Path, command: str) -> str:
    """A last line that names the run and a command to try next, as in `show {} transfer`."""
    return f"\nrows are in {folder}; next: ontogeny {command.format(shlex.quote(str(folder)))}"


def print_failures(title: str, failures: Sequence[Mapping[str, str]]) -> None:
    """Print failures as plain text, so that brackets in paths are not markup."""
    for failure in failures:
        place = f"{failure.get('stage') or ''} {failure['checkpoint']}".strip()
        typer.echo(f"{typer.style(title, fg='red')} {place}: {with_options(failure['reason'])}")


def interval_text(row: "Mapping[Any, Any] | pd.Series") -> str:
    """A value with its interval, if it has one: 0.93 [0.90, 0.96]."""
    if row["value"] != row["value"] or row["low"] != row["low"] or row["high"] != row["high"]:
        return number_text(row["value"])
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def number_text(value: float) -> str:
    """A number with two digits; – for NaN."""
    return "–" if value != value else f"{value:.2f}"


def estimate_lines(estimate: "TraceEstimate", plan: "TracePlan") -> Iterable[str]:
    """The dry run of a trace, one quantity per line."""
    from ontogeny.data.class_names import misspelt_classes

    about = "" if estimate.tokens_exact else "about "
    quantities = {
        "checkpoints": f"{visited_line(plan.lineage)}; {estimate.checkpoints_to_visit} to visit",
        "floor": estimate.floor,
        "units": f"{estimate.units} (checkpoint × concept), of which {estimate.units_to_do} to do",
        "concepts": ", ".join(
            f"{c.name} ({len(c.examples)} examples{c.meaning and f'; {c.meaning}'})" for c in plan.concepts
        ),
        "model": f"about {_format_count(estimate.parameters)} parameters, {format_bytes(estimate.bytes_to_read)} to read",
        "to download": format_bytes(estimate.bytes_to_download),
        "texts": f"{estimate.texts:,} per checkpoint, {about}{estimate.tokens:,} tokens",
        "forwards": f"{estimate.forwards:,}",
        **({"ablations": f"at most {estimate.ablated_answers:,} answers"} if estimate.ablated_answers else {}),
        **({"planes": f"at most {estimate.read_again} checkpoints are read again"} if estimate.read_again else {}),
        "time": f"about {format_duration(estimate.seconds)} on {estimate.device}, one checkpoint after the other",
        "disk": f"about {format_bytes(estimate.disk_bytes)} in the run directory",
    }
    yield from (f"{name:11}  {value}" for name, value in quantities.items())
    yield from (f"{'note':11}  {note}" for note in plan.lineage.notes)
    yield from (f"{'note':11}  {c.name}: {warning}" for c in plan.concepts for warning in misspelt_classes(c))
    for failure in plan.failures:
        title = typer.style("cannot be traced:", fg="red")
        yield f"{title} {failure.stage} {failure.checkpoint}: {with_options(failure.reason)}"


_MOST_NAMED = 8
"""Maximum number of checkpoints of a stage that are named; of more, the first and the last."""


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 checkpoint, 1,200 checkpoints."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def visited_line(lineage: "Lineage") -> str:
    """The checkpoints that a command visits, by stage."""
    stages = []
    for stage in lineage.stages:
        names = [checkpoint.label.removeprefix(f"{stage.name} ") for checkpoint in stage.checkpoints]
        named = names if len(names) <= _MOST_NAMED else [*names[:3], f"… {len(names) - 4} more …", names[-1]]
        stages.append(f"{stage.name} {'; '.join(named)}")
    return f"{counted(len(lineage.checkpoints), 'checkpoint')}: {' · '.join(stages)}"


def controls_power(effects: int, controls: int) -> dict[str, float]:
    """Power of the random directions for effects that are corrected together."""
    from ontogeny.statistics.attainable import controls_needed, least_control_p, least_q

    return {
        "effects": effects,
        "controls": controls,
        "least_p": least_control_p(controls),
        "least_q": least_q(effects, controls),
        "controls_needed": controls_needed(effects, 0.05),
    }


def controls_line(power: Mapping[str, float]) -> str:
    """`controls_power` as a sentence of a dry run."""
    effects, controls, needed = (int(power[name]) for name in ("effects", "controls", "controls_needed"))
    line = (
        f"{counted(effects, 'effect')} corrected together, {counted(controls, 'random direction')} each: the least p is "
        f"{power['least_p']:.2g}, the least q of a single effect {power['least_q']:.2g}"
    )
    if controls >= needed:
        return line
    return f"{line}; too few controls to tell of an effect that is alone ({needed:,} needed): add --controls {needed}"


def run_outcome(run: "Run") -> dict[str, Any]:
    """The outcome of a run for `--json`: scores at the best site, events, warnings and failures."""
    from ontogeny.storage.files import sql_literal

    about = run.about
    events = run.records("metric in ('emergence_step', 'loss_step', 'used_step', 'readable_minus_used', 'best_site')")
    best = events[events["metric"].eq("best_site")][["concept", "site", "method"]].drop_duplicates()
    # As values: a join of the table with itself takes much more memory.
    at_best = " or ".join(
        f"(concept = {sql_literal(concept)} and site = {sql_literal(site)} and method = {sql_literal(method)})"
        for concept, site, method in best.itertuples(index=False)
    )
    last = run.query(
        f"""select concept, stage, step, site, method, metric, value, low, high, n from records
            where metric in ('auroc', 'r2', 'accuracy') and control is null and stage is not null and ({at_best or "false"})
            qualify step is not distinct from max(step) over (partition by concept, stage)"""
    )
    return {
        "run": str(run.folder),
        "lineage": about["lineage"]["name"],
        "checkpoints": len(about["lineage"]["checkpoints"]),
        "scores": json_rows(last),
        "events": json_rows(events.dropna(axis=1, how="all")),
        "positive": positive_classes(about["concepts"]),
        "warnings": {concept["name"]: concept["warnings"] for concept in about["concepts"]},
        "failures": about["failures"],
    }


def positive_classes(concepts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """By concept of run.json with two named classes: which one is positive."""
    from ontogeny.data.examples import class_meaning

    return {
        c["name"]: class_meaning(c["classes"]) for c in concepts if c["kind"] == "binary" and len(c["classes"]) == 2
    }


def format_bytes(n: float) -> str:
    if n < 1000:
        return f"{n:.0f} B"
    unit = next(unit for unit in ("kB", "MB", "GB", "TB") if (n := n / 1000) < 1000 or unit == "TB")
    return f"{n:.1f} {unit}"


def _format_count(n: float) -> str:
    return f"{n / 1e9:.1f} G" if n >= 1e9 else f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.0f} k"


def format_duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
