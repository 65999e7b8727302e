"""`ontogeny compare`: compare the stages of a lineage by several studies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._compare_inputs import ComparisonTexts, verdict_question
from ontogeny.cli._output import format_bytes, format_duration, next_command, print_failures, print_output
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ontogeny.jobs.compare.estimate import ComparisonEstimate
    from ontogeny.jobs.compare.plan import ComparisonPlan
    from ontogeny.lineage import Checkpoint, Lineage
    from ontogeny.storage.run import Run


def compare_command(
    targets: Annotated[
        list[str],
        typer.Argument(help="A lineage (lineage.toml, folder, repository), or stages as NAME=REPO_OR_FOLDER."),
    ],
    out: Annotated[Path, arg.output("Run directory; finished studies are not computed again.", "--out", "-o")],
    stages: Annotated[
        str | None, arg.measure("Such as pretrain:last,sft:*,dpo:last. Default: each stage's last.")
    ] = None,
    studies: Annotated[
        str, arg.measure("Studies, separated by commas; see `ontogeny list studies`.")
    ] = "knowledge,truthfulness,refusal,confidence",
    pairing: Annotated[
        str, arg.measure("Prompt pairs of knowledge: recall, same_object, one_span, or auto, the first that works.")
    ] = "auto",
    statements: Annotated[
        list[str] | None, arg.texts("True and false statements: concept file or name. Several are held out in turn.")
    ] = None,
    requests: Annotated[str | None, arg.texts("Concept whose positive examples are harmful requests.")] = None,
    harmful: Annotated[Path | None, arg.texts("Harmful requests: a text file or table. Needs --harmless.")] = None,
    harmless: Annotated[Path | None, arg.texts("Harmless requests: a text file or table. Needs --harmful.")] = None,
    neutral: arg.Neutral = None,
    questions: Annotated[str | None, arg.texts("Concept with prompts, right and wrong answers.")] = None,
    verdicts: Annotated[str | None, arg.texts("Words for true and false. Default: TRUE,FALSE or right,wrong.")] = None,
    ask: Annotated[str | None, arg.texts("Text between a statement and its verdict. Needs --verdicts.")] = None,
    shots: Annotated[int | None, arg.texts("Judged statements before each one. Needs --verdicts.", min=0)] = None,
    phrase: Annotated[list[str] | None, arg.texts("First words of a refusal; repeat for more.")] = None,
    template: Annotated[
        str | None, arg.texts(f"{arg.TEMPLATE_HELP} Requests are asked in it. Default: own if a stage has one.")
    ] = None,
    limit: Annotated[int, arg.texts("Maximum number of texts per kind, in whole groups; 0: all.", min=0)] = 400,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    memory: Annotated[float | None, arg.compute("GB for all models together. Default: half of the memory.")] = None,
    allow_pickle: arg.AllowPickle = False,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Compare the stages of a lineage in knowledge, truthfulness, refusal and confidence, with intervals."""
    # First what needs no torch: a typing error is answered at once.
    arg.check_plugins("studies", [name for name in map(str.strip, studies.split(",")) if name], defining="INPUTS")
    texts = [*(statements or ()), *(name for name in (requests, questions) if name)]
    arg.check_concept_arguments(texts)
    arg.check_choices("pairing", [pairing])
    opened = _open_lineage(targets, stages, allow_pickle)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.compare.compare import run_comparison
    from ontogeny.jobs.compare.estimate import estimate_comparison
    from ontogeny.jobs.compare.inputs import select_studies, study_names
    from ontogeny.jobs.compare.plan import plan_comparison
    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions
    from ontogeny.patching.prompt_pairs import parse_pairing

    arg.check_compute(device, dtype)
    lineage, checkpoints = _stages(opened, targets, stages, allow_pickle)
    given = ComparisonTexts(
        Path(targets[0]), statements, requests, harmful, harmless, neutral, questions, limit, seed
    ).inputs(
        study_names(studies),
        question=verdict_question(verdicts, ask, shots),
        pairing=parse_pairing(pairing),
        template=template,
        **({"phrases": tuple(phrase)} if phrase else {}),
    )
    options = ModelOptions(device, dtype, tokenizer, allow_pickle)
    plan = plan_comparison(lineage, checkpoints, given, select_studies(studies, given), options)
    if dry_run:
        _print_plan(plan, estimate_comparison(plan, plan.open_run(out)), as_json)
        return
    if not as_json:
        for line in _preflight_lines(plan):
            typer.echo(line, err=True)
    with progress_bar(quiet=quiet or as_json) as watch:
        budget = None if memory is None else int(memory * 1e9)
        run = run_comparison(plan, out, memory=budget, command=command_line(), on_progress=watch)
    _print_findings(run, as_json)


def _open_lineage(targets: list[str], stages: str | None, allow_pickle: bool) -> "Lineage | None":
    """The lineage whose stages are compared, with the names of `stages` checked; None where each stage is named as NAME=SOURCE."""
    from ontogeny.lineage import Lineage

    if any("=" in target for target in targets):
        if stages is not None:
            raise BadInput("--stages selects checkpoints of one lineage, and NAME=… names them already: leave one out.")
        return None
    if len(targets) > 1:
        raise BadInput(
            f"{len(targets)} lineages were given: give one, or name stages: base={targets[0]} post={targets[1]}."
        )
    lineage = Lineage.open(targets[0], allow_pickle=allow_pickle)
    for part in filter(None, map(str.strip, (stages or "").split(","))):
        lineage.stage(part.partition(":")[0].strip())
    return lineage


def _stages(
    lineage: "Lineage | None", targets: list[str], stages: str | None, allow_pickle: bool
) -> "tuple[Lineage, dict[str, Checkpoint]]":
    from dataclasses import replace

    from ontogeny.jobs.compare.stages import drop_duplicate_checkpoints, lineage_from_names, select_stages

    if lineage is None:
        return lineage_from_names(targets, allow_pickle=allow_pickle)
    selected = select_stages(lineage, stages or ",".join(stage.name for stage in lineage.stages))
    distinct, notes = drop_duplicate_checkpoints(selected, allow_pickle=allow_pickle)
    # If fewer than two are left, the plan raises an error that names the duplicates.
    return replace(lineage, notes=(*lineage.notes, *notes)), distinct if len(distinct) > 1 else selected


def _preflight_lines(plan: "ComparisonPlan") -> "Iterator[str]":
    """Differences between the stages, and the comparisons that they rule out."""
    report = plan.preflight
    yield f"{len(plan.checkpoints)} stages: {', '.join(plan.checkpoints)}; preflight on {report.texts:,} texts"
    yield from (f"  {note}" for note in plan.lineage.notes)
    for line in report.differing:
        values = "; ".join(f"{stage}: {value}" for stage, value in line.values.items())
        yield f"  {typer.style('differs:', fg='yellow')} {line.what}: {values}"
    if not report.differing:
        yield "  tokenizers, templates and shapes are the same"
    yield from (f"  {typer.style('not compared:', fg='yellow')} {reason}" for reason in report.cannot)


def _print_plan(plan: "ComparisonPlan", estimate: "ComparisonEstimate", as_json: bool) -> None:
    from dataclasses import asdict

    seconds = estimate.aspects
    done = [study for study in plan.studies if study not in seconds]
    lines = [
        *_preflight_lines(plan),
        *(f"{study}: about {format_duration(time)} on {plan.options.device}" for study, time in seconds.items()),
        *([f"done already: {', '.join(done)}"] if done else []),
        f"in all about {format_duration(estimate.seconds)}; {format_bytes(estimate.bytes_to_read)} to read, "
        f"{format_bytes(estimate.bytes_to_download)} to download",
    ]
    print_output(asdict(estimate) | {"preflight": plan.preflight.as_json()}, lines, as_json=as_json)


def _print_findings(run: "Run", as_json: bool) -> None:
    """Print the findings of each study; exit code 1 if a study failed."""
    from ontogeny.findings.selection import RecordSource
    from ontogeny.findings.stage_comparison import COMPARISON_ROWS, comparison_sentences
    from ontogeny.jobs.compare.inputs import load_study

    about = run.about
    by_study = comparison_sentences(RecordSource(run.query, about).rows(COMPARISON_ROWS))
    panels = {load_study(study).title: sentences for study, sentences in by_study.items()}
    data = {"run": str(run.folder), "panels": panels, "failures": about["failures"]}
    data |= {name: about["compare"][name] for name in ("stages", "preflight")}
    lines = [
        line
        for panel, sentences in panels.items()
        for line in (f"\n{typer.style(panel, bold=True)}", *(f"  {sentence}" for sentence in sentences))
    ]
    print_output(data, lines, as_json=as_json)
    if not as_json:
        print_failures("not compared:", about["failures"])
        typer.echo(next_command(run.folder, "report {}"))
    if about["failures"]:
        raise typer.Exit(1)
