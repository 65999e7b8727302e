"""`ontogeny compare`: what post-training did, from four sides, stage by stage."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli._compare_inputs import ComparisonTexts, load_comparison_inputs
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.jobs.compare.compare import ComparisonPlan
    from ontogeny.lineage import Checkpoint, Lineage
    from ontogeny.storage.run import Run


_DEFAULT_STUDIES = "knowledge,truth,refusal,confidence"


def compare_command(
    targets: Annotated[
        list[str],
        typer.Argument(help="One lineage (lineage.toml, folder, repository), or stages as NAME=REPO_OR_FOLDER."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory; finished views are not computed again.")],
    stages: Annotated[
        str | None,
        typer.Option(help="Of a lineage: pretrain:last,sft:*,dpo:last. Default: the last checkpoint of each stage."),
    ] = None,
    views: Annotated[str, typer.Option(help="Some of knowledge, truth, refusal, confidence.")] = _DEFAULT_STUDIES,
    statements: Annotated[
        list[str] | None,
        typer.Option(
            "--statements", help="True and false statements: a concept file or name; several are held out in turn."
        ),
    ] = None,
    requests: Annotated[str | None, typer.Option(help="Concept whose positive examples are harmful requests.")] = None,
    harmful: Annotated[
        Path | None, typer.Option(help="Harmful requests, one a line or a table; with --harmless.")
    ] = None,
    harmless: Annotated[Path | None, typer.Option(help="Harmless requests likewise.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Neutral texts, one a line or a table.")] = None,
    questions: Annotated[str | None, typer.Option(help="Concept with prompts, right and wrong answers.")] = None,
    verdicts: Annotated[
        str | None, typer.Option(help="Words for true and false; default: TRUE,FALSE or right,wrong.")
    ] = None,
    ask: Annotated[str | None, typer.Option(help="With --verdicts: what stands before them.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="With --verdicts: judged statements in front.")] = None,
    pairing: Annotated[
        str,
        typer.Option(
            help="How pairs are mined for knowledge: recall, same_object, one_span; auto: the first that gives any."
        ),
    ] = "auto",
    phrase: Annotated[
        list[str] | None, typer.Option("--phrase", help="With what a refusal begins; repeat for more.")
    ] = None,
    template: Annotated[str, typer.Option(help="How a request is put to every stage; {} is the request.")] = "{}",
    limit: Annotated[int, typer.Option(min=0, help="At most so many texts of a kind, whole groups; 0: all.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of splits, resamples and random directions.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    tokenizer: Annotated[Path | None, typer.Option(help="Tokenizer folder, where the checkpoints have none.")] = None,
    memory: Annotated[
        float | None, typer.Option(help="GB that models may take together; default: half of what there is.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also read pytorch_model.bin (weights only).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what differs and how long it may take; do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Compare stages of a lineage: knowledge, truthfulness, refusal, confidence, each as a table of stages with intervals."""
    from ontogeny.jobs.compare.compare import ComparisonRunOptions, existing_comparison, plan_comparison
    from ontogeny.jobs.compare.inputs import select_studies

    _check(device, dtype)
    lineage, chosen = _stages(targets, stages, allow_pickle)
    named = ComparisonTexts(
        statements=statements,
        requests=requests,
        harmful=harmful,
        harmless=harmless,
        texts=texts,
        questions=questions,
        verdicts=verdicts,
        ask=ask,
        shots=shots,
        pairing=pairing,
        phrases=phrase,
        template=template,
        limit=limit,
        seed=seed,
    )
    given = load_comparison_inputs(named, views, Path(targets[0]))
    how = ComparisonRunOptions(device, dtype, tokenizer, allow_pickle, None if memory is None else int(memory * 1e9))
    job = plan_comparison(lineage, chosen, given, select_studies(views, given), how)
    if dry_run:
        _plan(job, existing_comparison(job, out), as_json)
        return
    if not as_json:
        typer.echo(_print_preflight(job), err=True)
    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.compare.compare import compare as run_all
    from ontogeny.jobs.run_json import command_line

    with progress_bar(quiet=quiet or as_json) as watch:
        run = run_all(job, out, command=command_line(), on_progress=watch)
    _print_findings(run, as_json)


def _check(device: str, dtype: str) -> None:
    from ontogeny.cli._arguments import check_device
    from ontogeny.errors import unknown_name
    from ontogeny.measurements.settings import DTYPE_NAMES

    if dtype not in DTYPE_NAMES:
        raise unknown_name("dtype", dtype, DTYPE_NAMES)
    check_device(device)


def _stages(targets: list[str], stages: str | None, allow_pickle: bool) -> "tuple[Lineage, dict[str, Checkpoint]]":
    from dataclasses import replace

    from ontogeny.jobs.compare.stages import drop_duplicate_checkpoints, lineage_from_names, select_stages
    from ontogeny.lineage import Lineage

    if any("=" in target for target in targets):
        if stages is not None:
            raise BadInput("--stages chooses checkpoints of one lineage; NAME=… names them already. Leave one out.")
        return lineage_from_names(targets, allow_pickle=allow_pickle)
    if len(targets) > 1:
        raise BadInput(
            f"{len(targets)} lineages were given. Give one, or name stages: base={targets[0]} post={targets[1]}."
        )
    lineage = Lineage.open(targets[0], allow_pickle=allow_pickle)
    picked = select_stages(lineage, stages or ",".join(stage.name for stage in lineage.stages))
    kept, notes = drop_duplicate_checkpoints(picked, allow_pickle=allow_pickle)
    # Of two alike, one has to be said by name: what is left may be no comparison.
    return replace(lineage, notes=(*lineage.notes, *notes)), kept if len(kept) > 1 else picked


def _print_preflight(job: "ComparisonPlan") -> str:
    """What differs, a line each, and what that forbids."""
    seen = job.preflight
    said = [f"{len(job.checkpoints)} stages: {', '.join(job.checkpoints)}; preflight on {seen.texts:,} texts"]
    said += [f"  {note}" for note in job.lineage.notes]
    for line in seen.differing:
        values = "; ".join(f"{stage}: {value}" for stage, value in line.values.items())
        said.append(f"  {typer.style('differs:', fg='yellow')} {line.what}: {values}")
    said += [f"  {typer.style('not compared:', fg='yellow')} {what}" for what in seen.cannot]
    return "\n".join(said if seen.differing else [*said, "  tokenizers, templates and shapes are the same"])


def _plan(job: "ComparisonPlan", run: "Run", as_json: bool) -> None:
    from dataclasses import asdict

    from ontogeny.cli._output import format_bytes, format_duration
    from ontogeny.jobs.compare.compare import estimate_comparison

    found = estimate_comparison(job, run)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"preflight": job.preflight.told()}, indent=2))
        return
    typer.echo(_print_preflight(job))
    done = [aspect for aspect in job.aspects if aspect not in found.aspects]
    for aspect, seconds in found.aspects.items():
        typer.echo(f"{aspect}: about {format_duration(seconds)} on {job.how.device}")
    if done:
        typer.echo(f"done already: {', '.join(done)}")
    typer.echo(
        f"in all about {format_duration(found.seconds)}; {format_bytes(found.bytes_to_read)} to read, "
        f"{format_bytes(found.bytes_to_download)} to download"
    )


def _print_findings(run: "Run", as_json: bool) -> None:
    """The sentences of each panel; exit code 1 where an aspect could not be had."""
    from ontogeny.findings.stage_comparison import comparison_sentences
    from ontogeny.findings.timeline import order_like_run

    about = run.about
    said = comparison_sentences(order_like_run(run.records(), about))
    if as_json:
        told: dict[str, Any] = {
            "run": str(run.folder),
            "stages": about["compare"]["stages"],
            "panels": said,
            "preflight": about["compare"]["preflight"],
            "failures": about["failures"],
        }
        typer.echo(json.dumps(told, indent=2))
    else:
        for panel, sentences in said.items():
            typer.echo(f"\n{typer.style(panel, bold=True)}")
            for sentence in sentences:
                typer.echo(f"  {sentence}")
        for failure in about["failures"]:
            typer.echo(f"{typer.style('not compared:', fg='red')} {failure['checkpoint']}: {failure['reason']}")
        typer.echo(f"\nrows and run.json are in {run.folder}; next: ontogeny report {shlex.quote(str(run.folder))}")
    if about["failures"]:
        raise typer.Exit(1)
