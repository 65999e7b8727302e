"""`ontogeny study`: run studies of papers, judge their claims, write their pages."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._command import Command, CommandGroup, with_options
from ontogeny.cli._output import format_duration, json_rows, print_output
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.jobs.study.study import StudyEstimate
    from ontogeny.storage.run import Run

study_app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Studies of papers: small models are trained from several seeds, measured, and the paper's claims judged.",
)
_Name = Annotated[str, typer.Argument(help="Name of a study; see `ontogeny study list`.")]
_Preset = Annotated[str, arg.measure("smoke (seconds), tiny (minutes on two cores), small, or paper (its own sizes).")]
_Seeds = Annotated[int, arg.measure("Number of training seeds. Claims need at least 3.", min=1)]
_StudyRun = Annotated[Path, typer.Argument(help="Run directory of a study.")]
_Jobs = Annotated[
    int,
    arg.compute(
        "Processes, each of which runs one seed. With several, a seed that fails does not end the others.", min=1
    ),
]
_Threads = Annotated[
    int | None, arg.compute("Threads of each process. Default: 1 with several processes, else those of torch.", min=1)
]
_Out = Annotated[Path, arg.output("Run directory; finished seeds are not computed again.", "--out", "-o")]


@study_app.command("list", cls=Command)
def list_studies(as_json: arg.AsJson = False) -> None:
    """List the studies: question, paper, number of claims, time."""
    from ontogeny.jobs.study.paper_study import load_paper_study, paper_study_names

    studies = [load_paper_study(name) for name in paper_study_names()]
    data = [
        {
            "name": study.name,
            "question": study.question,
            "paper": study.paper,
            "claims": [claim.text for claim in study.claims],
            "seconds_per_seed": dict(study.seconds),
            "challenges": list(study.challenges),
        }
        for study in studies
    ]
    lines = [
        f"{study.name:18} {study.question}\n{'':18} {study.paper}; {len(study.claims)} claims, "
        f"about {format_duration(study.seconds['tiny'])} a seed at tiny"
        for study in studies
    ]
    print_output(data, lines, as_json=as_json)


@study_app.command("run", cls=Command)
def run_one_study(
    name: _Name,
    out: _Out,
    preset: _Preset = "tiny",
    seeds: _Seeds = 5,
    setting: Annotated[
        list[str] | None, arg.measure("A setting that differs from the preset, as NAME=VALUE; repeat.", "--set")
    ] = None,
    keep_checkpoints: Annotated[
        bool, arg.output("Keep the checkpoints of finished seeds.", "--keep-checkpoints")
    ] = False,
    jobs: _Jobs = 1,
    threads: _Threads = None,
    shard: Annotated[str | None, arg.compute("Run only a share of the seeds: 0/16, …, 15/16.")] = None,
    use_ray: Annotated[bool, arg.ray("Run the seeds with Ray workers.", "--ray")] = False,
    address: Annotated[
        str | None, arg.ray("A running cluster, host:6379 or auto. Default: start one here.", "--ray-address")
    ] = None,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Run a study: train and measure every seed, then judge the claims."""
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.run_json import command_line
    from ontogeny.jobs.study.study import claims_table, estimate_study, judge_study, plan_study, run_study
    from ontogeny.jobs.trace.ray_cluster import RayCluster
    from ontogeny.jobs.trace.shards import Shard

    plan = plan_study(name, preset, seeds=seeds, changes=_changes(setting or []))
    share = Shard.parse(shard) if shard else None
    if dry_run:
        estimate = estimate_study(plan, out, jobs=jobs)
        print_output(asdict(estimate), [_estimate_line(estimate)], as_json=as_json)
        return
    cluster = RayCluster(address) if use_ray or address else None
    with progress_bar(quiet=quiet or as_json) as show:
        run = run_study(
            plan,
            out,
            jobs=jobs,
            threads=threads,
            shard=share,
            cluster=cluster,
            keep_checkpoints=keep_checkpoints,
            command=command_line(),
            on_progress=show,
        )
    judged = judge_study(run)
    _print_claims(claims_table(judged), [j.sentence for j in judged], out, as_json=as_json)
    _exit_if_any_failed([run])


@study_app.command("claims", cls=Command)
def print_study_claims(run: _StudyRun, as_json: arg.AsJson = False) -> None:
    """Print each claim of a study with its verdict and evidence. Nothing is computed again."""
    from ontogeny.jobs.study.study import claims_table, judge_study
    from ontogeny.storage.run import Run

    judged = judge_study(Run.open(run))
    _print_claims(claims_table(judged), [j.sentence for j in judged], run, as_json=as_json)


@study_app.command("report", cls=Command)
def write_study_page(
    run: _StudyRun,
    out: Annotated[
        Path | None, arg.output("HTML file. Default: report.html in the run directory.", "--out", "-o")
    ] = None,
) -> None:
    """Write the page of a study: question, set-up, claims with verdicts, pictures, differences from the paper."""
    from ontogeny.report.study_html import write_study_report
    from ontogeny.storage.run import Run, check_output

    path = out or run / "report.html"
    check_output(path)
    typer.echo(write_study_report(Run.open(run), path))


@study_app.command("replicate", cls=Command)
def replicate(
    out: _Out,
    preset: _Preset = "tiny",
    seeds: _Seeds = 5,
    studies: Annotated[str | None, arg.measure("Studies, separated by commas. Default: all.")] = None,
    jobs: _Jobs = 1,
    threads: _Threads = None,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Run all studies and write one page: systems of the literature, their claims, our verdicts."""
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.processes import check_processes
    from ontogeny.jobs.run_json import command_line
    from ontogeny.jobs.study.replicate import plan_replication, run_replication
    from ontogeny.jobs.study.study import claims_table, estimate_study, judge_study
    from ontogeny.report.study_html import write_replication_report

    plans = plan_replication(preset, seeds=seeds, names=[s.strip() for s in (studies or "").split(",") if s.strip()])
    if dry_run:
        estimates = [estimate_study(plan, out / plan.study.name) for plan in plans]
        check_processes(jobs, threads)
        together = max(
            sum(e.seconds for e in estimates) / jobs, max(e.seconds / (e.seeds_to_do or 1) for e in estimates)
        )
        processes = f" in {jobs} processes" if jobs > 1 else ""
        lines = [*map(_estimate_line, estimates), f"all: about {format_duration(together)}{processes}"]
        print_output([asdict(estimate) for estimate in estimates], lines, as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as show:
        runs = run_replication(plans, out, jobs=jobs, threads=threads, command=command_line(), on_progress=show)
    judged_runs = [run for run in runs if run.about["study"]["seeds_in_run"]]
    page = write_replication_report(judged_runs, out / "report.html")
    data: dict[str, Any] = {"report": str(page)}
    lines = []
    for run in judged_runs:
        judged = judge_study(run)
        data[run.folder.name] = json_rows(claims_table(judged))
        held = sum(j.verdict == "held" for j in judged)
        lines.append(f"{run.folder.name}: {held} of {len(judged)} claims held")
    print_output(data, [*lines, f"\nthe page is {page}"], as_json=as_json)
    _exit_if_any_failed(runs)


@study_app.command("challenges", cls=Command)
def print_challenges(as_json: arg.AsJson = False) -> None:
    """List the eighteen foundational challenges, which study speaks to each, and which are out of scope."""
    from ontogeny.findings.literature import CHALLENGES, studies_of_challenge
    from ontogeny.jobs.study.paper_study import load_paper_study, paper_study_names

    studies = [load_paper_study(name) for name in paper_study_names()]
    data = [asdict(c) | {"studies": studies_of_challenge(c.number, studies)} for c in CHALLENGES]
    lines = [
        f"{row['number']:2}  {row['text']}: "
        + (
            ", ".join(row["studies"])
            or (f"out of scope ({row['out_of_scope']})" if row["out_of_scope"] else "no study yet")
        )
        for row in data
    ]
    print_output(data, lines, as_json=as_json)


def _print_claims(table: Any, sentences: list[str], folder: Path, *, as_json: bool) -> None:
    lines = [f"{row['claim']}: {sentence}" for row, sentence in zip(table.to_dict("records"), sentences, strict=True)]
    print_output(
        json_rows(table), [*lines, f"\nrows are in {folder}; next: ontogeny study report {folder}"], as_json=as_json
    )


def _exit_if_any_failed(runs: "Sequence[Run]") -> None:
    """Print the seeds that failed, one per line, and exit with code 1 if there are any."""
    failures = [failure for run in runs for failure in run.failures]
    for failure in failures:
        typer.echo(f"ontogeny: {failure.stage}, {failure.checkpoint} failed: {with_options(failure.reason)}", err=True)
    if failures:
        raise typer.Exit(1)


def _estimate_line(estimate: "StudyEstimate") -> str:
    processes = f"in {estimate.processes} processes" if estimate.processes > 1 else "on two cores"
    return (
        f"{estimate.study}, {estimate.preset}: {estimate.seeds_to_do} of {estimate.seeds} seeds to do, "
        f"about {format_duration(estimate.seconds)} {processes}; {estimate.claims} claims"
    )


def _changes(texts: list[str]) -> dict[str, Any]:
    """Settings written as NAME=VALUE; values are read as Python numbers, tuples or words."""
    import ast

    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--set must be NAME=VALUE, got {text!r}.")
        try:
            changes[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            changes[name.strip()] = value.strip()
    return changes
