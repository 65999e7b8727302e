"""`ontogeny gauges`: calibrated gauges of a chat model with tested control vectors, as a pack that any chat loads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import counted, format_duration, print_output
from ontogeny.errors import escape_control

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.gauges.pack import PackedGauge

_CUT = {"left_out": "left out", "shortened": "read up to an earlier turn that fits into the context"}


def gauges_command(
    model: Annotated[
        str, typer.Argument(help="Folder, Hub repository or lineage.toml; of --steps, the last checkpoint is taken.")
    ],
    concept: Annotated[
        list[str],
        arg.texts(
            "Concept of two or more classes: a file, a name, or a folder of dialogues …_CLASS.txt; repeat for more.",
            "--concept",
            "-c",
            autocompletion=arg.plugin_completion("concepts"),
        ),
    ],
    out: Annotated[Path, arg.output("Folder of the pack, new or with gauges of the same checkpoint.", "--out", "-o")],
    template: Annotated[
        str | None,
        arg.texts("Chat template in Jinja, or its file. Default: that of the lineage or the tokenizer.", "--template"),
    ] = None,
    suffix: Annotated[
        str | None,
        arg.texts(
            "Begun answer at whose end the attribute is read; '' for the end of the instruction. Default: a sentence with its name."
        ),
    ] = None,
    questions: Annotated[
        str | None,
        arg.texts("Held-out user's turns, one a line, at which control is tested. Default: the concept's own."),
    ] = None,
    user: Annotated[
        list[str] | None,
        arg.texts("Concept about the user; class names may follow: calling=farmer,sailor. Repeat.", "--user"),
    ] = None,
    system: Annotated[list[str] | None, arg.texts("Likewise a concept about the system.", "--system")] = None,
    limit: arg.Limit = None,
    calibration: Annotated[
        str, arg.measure("temperature, platt, isotonic, or auto: the lowest Brier score on the choose split.")
    ] = "auto",
    site: Annotated[
        str, arg.steering("Site of control, such as resid.3. Default: the largest effect on the choose split.")
    ] = "",
    gaps: Annotated[float, arg.steering("Length of a push, in distances of the class means.")] = 1.0,
    controls: arg.Controls = 99,
    most_questions: Annotated[int, arg.steering("Most held-out questions of a concept.", min=1)] = 64,
    tokens: Annotated[int, arg.steering("New tokens of a reply that is judged.", min=1)] = 24,
    steps: arg.Steps = "last",
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Fit reading and control probes of a chat model on three splits, calibrate them, test control, and write a gauge pack."""
    from ontogeny.lineage import Lineage

    asked = arg.neutral_texts(questions)
    jinja = arg.given_chat_template(template)
    lineage = Lineage.open(model, allow_pickle=allow_pickle).select(steps)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.gauges.pack import member_json
    from ontogeny.gauges.packing import PackSettings
    from ontogeny.jobs.gauges import estimate_gauges, gauges, plan_gauges
    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions

    arg.check_compute(device, dtype)
    options = ModelOptions(device, dtype, tokenizer=tokenizer, allow_pickle=allow_pickle)
    settings = PackSettings(
        suffix=suffix,
        calibration=calibration,
        control_site=site,
        gaps=gaps,
        controls=controls,
        questions=most_questions,
        tokens=tokens,
        seed=seed,
    )
    plan = plan_gauges(
        lineage.checkpoints[-1],
        [_concept(name, limit, seed) for name in concept],
        settings,
        template=jinja,
        questions=asked,
        users=user or (),
        systems=system or (),
        model=options,
    )
    if dry_run:
        cost = estimate_gauges(plan, out, options)
        lines = [
            f"{cost.checkpoint}: {counted(cost.concepts, 'concept')}, {cost.concepts_to_do} to do",
            f"{counted(cost.conversations, 'conversation')} at every site of the stream, at two positions",
            f"{cost.pushes} pushes on {counted(cost.questions, 'held-out question')}",
            f"about {cost.tokens:,} tokens; time: about {format_duration(cost.seconds)}",
        ]
        print_output(vars(cost), lines, as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as watch:
        pack = gauges(plan, lineage, out, model=options, command=command_line(), on_progress=watch)
    wanted = {c.name for c in plan.concepts}
    members = [member for member in pack.members if member.gauge.label.concept in wanted]
    lines = [line for member in members for line in _lines(member)]
    lines += [f"pack of {counted(len(pack.members), 'gauge')}: {out}", f"ontogeny dashboard RUN --gauges {out}"]
    data = {"pack": str(out), "gauges": [member_json(member) for member in members]}
    print_output(data, lines, as_json=as_json)


def _concept(name: str, limit: int | None, seed: int) -> "Concept":
    from ontogeny.gauges.labelled_chats import dialogue_folder, is_dialogue_folder

    if is_dialogue_folder(name):
        concept = dialogue_folder(name)
        return concept if limit is None else concept.limited(limit, seed)
    return arg.concept_from_argument(name, limit=limit, seed=seed)


def _lines(member: "PackedGauge") -> list[str]:
    """The card of a gauge as text."""
    gauge, check, numbers = member.gauge, member.check, member.numbers
    name = escape_control(gauge.label.concept)
    classes = escape_control(", ".join(gauge.label.classes))
    splits = " / ".join(map(str, member.splits.values()))
    scores = numbers["scores"]
    cut = [f"{numbers[key]} {words}" for key, words in _CUT.items() if numbers.get(key)]
    floors = [gauge.floors.get(key, float("nan")) for key in ("surface_tfidf", "random_direction")]
    lines = [
        f"{name} ({classes}): {splits} conversations to fit, choose and test{'; ' if cut else ''}{', '.join(cut)}",
        f"  reading   {_where(gauge.site)}  AUROC {gauge.auroc:.2f} [{gauge.auroc_low:.2f}, {gauge.auroc_high:.2f}]; words alone "
        f"{floors[0]:.2f}, the best of random directions {floors[1]:.2f}",
        f"            ECE {gauge.calibration_error:.3f} ({member.calibration}); perfect calibration stays below "
        f"{gauge.calibration_noise:.3f}",
    ]
    if numbers["suffix_unknown_tokens"]:
        unknown = f"{numbers['suffix_unknown_tokens']} of {numbers['suffix_tokens']}"
        lines.append(
            f"            the tokenizer does not know {unknown} tokens of the begun answer {gauge.label.suffix!r}"
        )
    if gauge.reason:
        lines.append(f"            not readable: {escape_control(gauge.reason)}")
    tried = ", ".join(f"{key} {_number(one['accuracy']):.2f}" for key, one in scores.items() if one is not None)
    lines += [
        f"            accuracy of probe at position: {tried}; cosine at the site of control {_number(numbers['cosine']):+.2f}",
        f"  control   {_where(member.control_site)}  {check.verdict}{f' ({escape_control(check.reason)})' if check.reason else ''}",
    ]
    for one in check.effects:
        lines.append(
            f"            towards {escape_control(gauge.label.classes[one.towards])}: {one.effect:+.2f} [{one.low:+.2f}, {one.high:+.2f}] "
            f"beyond {check.controls} random directions ({one.random_low:+.2f} to {one.random_high:+.2f}), p {one.p:.3f}; along the "
            f"reading vector {one.reading_effect:+.2f}; KL {one.kl:.2f}, random {one.random_kl:.2f}"
        )
    if check.judge:
        lines.append(f"            {check.questions} questions, {check.groups} groups; outcome: {check.judge}")
    return lines


def _where(site: Any) -> str:
    return f"{site or 'no site'!s:8}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
