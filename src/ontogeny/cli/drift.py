"""`ontogeny drift`: for how many rounds of a dialogue each checkpoint keeps to its system prompt, and what helps."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._command import with_options
from ontogeny.cli._output import counted, json_rows, next_command, print_output, visited_line
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.dialogues.instructions import Instruction
    from ontogeny.dialogues.measure import DriftDesign
    from ontogeny.jobs.drift.plan import DriftSettings
    from ontogeny.lineage import Lineage


def drift_command(
    model: arg.LineageArgument,
    system: Annotated[
        list[str] | None,
        arg.measure(
            "Instruction by name (upper_case, json, pirate, …; a wrong name lists them), or a system prompt of your own with --judge; "
            "repeat for more. Default: six instructions of six families.",
            "--system",
            "-s",
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        arg.measure(
            "Judge of a system prompt of your own, in the order of these: the name of an instruction, or words:WORD,WORD."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        arg.steering(
            "Mitigation: plain, split_softmax=K, repetition=PERIOD, guidance=SCALE or capping=QUANTILE, with several strengths after "
            "commas; repeat for more. Default: plain.",
            "--method",
            "-m",
        ),
    ] = None,
    steps: arg.Steps = "last",
    rounds: Annotated[int, arg.measure("Rounds of a dialogue, each a turn of the user and one of the agent.")] = 8,
    pairs: Annotated[int, arg.measure("Dialogues of each instruction.")] = 6,
    runs: Annotated[int, arg.measure("Answers to each question after each round.")] = 2,
    tokens: arg.NewTokens = 60,
    temperature: Annotated[float, arg.texts("Temperature of the samples; 0 for greedy decoding, with --runs 1.")] = 1.0,
    top_p: Annotated[
        float, arg.texts("Sample from the likeliest tokens that have this share of the probability.")
    ] = 0.9,
    openings: Annotated[
        Path | None, arg.texts("First turns of the user: a text file, one a line. Default: 24 everyday topics.")
    ] = None,
    template: Annotated[
        str, arg.texts("Chat template: own (each checkpoint's; one without has a plain one), plain, a file, or Jinja.")
    ] = "own",
    batch: Annotated[int, arg.compute("Prompts in a forward pass.", min=1)] = 32,
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    delete_behind: arg.DeleteBehind = False,
    out: Annotated[Path | None, arg.output("Run directory. Default: none, rows are not kept.", "--out", "-o")] = None,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Let a chat model talk to itself under a system prompt: adherence, adoption and recall by round, and mitigations."""
    from ontogeny.dialogues.instructions import DEFAULT_INSTRUCTIONS
    from ontogeny.dialogues.mitigations import parse_mitigations
    from ontogeny.lineage import Lineage

    # First what needs no torch: a typing error is answered at once.
    instructions: Sequence[str | Instruction] = _instructions(system or [], judge or []) or DEFAULT_INSTRUCTIONS
    mitigations = parse_mitigations(method or ["plain"])
    lineage = Lineage.open(model, allow_pickle=allow_pickle).select(steps)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.dialogues.self_chat import OPENINGS, DialogueSettings
    from ontogeny.jobs.drift import DriftSettings, drift
    from ontogeny.jobs.drift.plan import plan_drift
    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions

    topics = OPENINGS if openings is None else tuple(arg.read_text_lines(openings))
    settings = DriftSettings(
        DialogueSettings(
            rounds=rounds,
            pairs=pairs,
            runs=runs,
            tokens=tokens,
            temperature=temperature,
            top_p=top_p,
            batch=batch,
            seed=seed,
            openings=topics,
        ),
        tuple(mitigations),
        _template(template),
    )
    design = plan_drift(instructions, settings)
    arg.check_compute(device, dtype)
    if dry_run:
        _print_plan(lineage, design, settings, as_json)
        return
    with tempfile.TemporaryDirectory() as spare, progress_bar(quiet=quiet or as_json) as watch:
        run = drift(
            lineage,
            instructions,
            out or Path(spare) / "run",
            settings,
            model=ModelOptions(device, dtype, tokenizer, allow_pickle),
            delete_behind=delete_behind,
            command=command_line(),
            on_progress=watch,
        )
        rows, failures = run.records("starts_with(unit, 'drift-')"), run.failures
    from ontogeny.findings.persona_drift import drift_sentences

    names = {mitigation.name for mitigation in settings.mitigations}
    shown = rows[rows["method"].isin(names)]
    lines = [visited_line(lineage), *drift_sentences(shown)]
    kept = [] if out is None else [next_command(out, "show {} persona_drift")]
    print_output({"rows": json_rows(shown)} if as_json else {}, [*lines, *kept], as_json=as_json)
    for failure in failures:
        typer.echo(f"not measured: {failure.stage} {failure.checkpoint}: {with_options(failure.reason)}", err=True)
    if failures:
        raise typer.Exit(1)


def _template(text: str) -> bool | str:
    from ontogeny.data.templates import is_chat_template, parse_template
    from ontogeny.dialogues.prompts import PLAIN_TEMPLATE

    if text in ("plain", "none"):
        return PLAIN_TEMPLATE
    template = parse_template(text)
    if isinstance(template, str) and not is_chat_template(template):
        raise BadInput(f"--template must be a chat template in Jinja, which has several turns, got {text[:60]!r}.")
    return template


def _instructions(systems: list[str], judges: list[str]) -> "list[str | Instruction]":
    """Instructions by name, and system prompts of one's own with their judges in order."""
    from ontogeny.dialogues.instructions import INSTRUCTIONS, instructions_named, own_instruction

    own = [system for system in systems if system not in INSTRUCTIONS]
    if own and not judges and not any(" " in system.strip() for system in own):
        instructions_named(own)  # a single word is a mistyped name
    if len(judges) != len(own):
        raise BadInput(
            f"each of {counted(len(own), 'system prompt')} of your own needs a --judge, got {len(judges)}: give words:red,blue or the name "
            "of an instruction for each."
        )
    left = iter(judges)
    return [
        system if system in INSTRUCTIONS else own_instruction(system, next(left), name=_own_name(own, system))
        for system in systems
    ]


def _own_name(own: list[str], system: str) -> str:
    return "own" if len(own) == 1 else f"own {own.index(system) + 1}"


def _print_plan(lineage: "Lineage", design: "DriftDesign", settings: "DriftSettings", as_json: bool) -> None:
    counts = design.answers
    mitigated = sum(count for name, count in counts.items() if name not in ("one_turn", "no_system"))
    answers = sum(sum(counts.values()) if one.kind == "plain" else mitigated for one in settings.mitigations)
    total = answers * len(lineage.checkpoints)
    data: dict[str, Any] = {
        "checkpoints": [f"{c.stage} {c.name}" for c in lineage.checkpoints],
        "instructions": {one.name: one.system for one in design.agents},
        "mitigations": [one.name for one in settings.mitigations],
        "answers_per_checkpoint": answers,
        "answers": total,
        "most_new_tokens": total * settings.dialogues.tokens,
    }
    lines = [
        visited_line(lineage),
        f"instructions: {', '.join(data['instructions'])}; mitigations: {', '.join(data['mitigations'])}",
        f"{counted(len(design.agents) * settings.dialogues.pairs, 'dialogue')} of {counted(settings.dialogues.rounds, 'round')}; "
        f"{counted(answers, 'generated text')} per checkpoint, {total:,} in all, at most {data['most_new_tokens']:,} new tokens",
    ]
    print_output(data, lines, as_json=as_json)
