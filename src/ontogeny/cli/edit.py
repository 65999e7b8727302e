"""`ontogeny edit`: change a fact in the weights of a model, and measure what else changes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import counted, format_duration, json_rows, next_command, print_output
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.editing.facts import FactEdit

_WEAK = 0.5
"""Probability of the new object under the value of the edit below which it is said to be weak."""
_LINES = {
    ("edit_probability", "fact"): "probability of the new object",
    ("edit_success", "fact"): "new object above the old one",
    ("edit_probability", "paraphrase"): "probability after paraphrases",
    ("edit_success", "paraphrase"): "new above old after paraphrases",
    ("edit_kept", "neighbour"): "neighbours that keep their next token",
    ("edit_kl", "neighbour"): "KL of neighbours, nats",
    ("edit_loss_change", "text"): "loss on texts, change in nats",
    ("edit_kl", "text"): "KL on texts, nats per token",
    ("edit_distortion", "thing"): "shattering R",
    ("edit_rearrangement", "thing"): "1 − correlation of distances",
    ("edit_procrustes", "thing"): "Procrustes residual",
}


def edit_command(
    model: Annotated[
        str, typer.Argument(help="Folder, Hub repository or lineage.toml; of --steps, the last checkpoint is edited.")
    ],
    fact: Annotated[
        list[str],
        arg.texts(
            "Text before the object; the subject may stand in braces, as in 'The {Eiffel Tower} is in'; repeat.",
            "--fact",
        ),
    ],
    to: Annotated[list[str], arg.texts("The new object; one for each --fact.", "--to")],
    texts: Annotated[
        str, arg.texts("Texts like those of the training: a text file (a text a line), a table, or a concept.")
    ],
    out: Annotated[Path, arg.output("Run directory; the edited model is in its folder model.", "--out", "-o")],
    method: Annotated[str, arg.measure(f"Method: {', '.join(arg.CHOICES['editing method'])}.")] = "rome",
    layer: Annotated[
        str, arg.measure("Block whose MLP is edited, from 1; several for memit: 3,4,5. Default: the middle.")
    ] = "",
    paraphrase: Annotated[
        list[str] | None, arg.texts("Another prompt that the new object should follow; repeat.")
    ] = None,
    neighbour: Annotated[list[str] | None, arg.texts("Prompt about another subject that should stay; repeat.")] = None,
    neighbours: Annotated[Path | None, arg.texts("Text file with one such prompt per line.")] = None,
    before: Annotated[str, arg.texts("The old object. Default: the likeliest other next token.", "--from")] = "",
    together: Annotated[bool, arg.measure("One change for all facts; else one after the other.")] = False,
    prefixes: Annotated[int, arg.measure("Contexts over which the fact is read, openings of the texts.", min=0)] = 5,
    controls: Annotated[int, arg.measure("Random changes of equal norm, the null of each number.", min=0)] = 8,
    null_share: Annotated[float, arg.measure("alphaedit: share of directions in the null space.")] = 0.7,
    ridge: Annotated[float, arg.measure("Share of the mean eigenvalue on the second moment's diagonal.")] = 1e-3,
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
    """Edit facts in the weights of a model: efficacy, paraphrases, neighbours, side effects and shattering, each beside its nulls."""
    from ontogeny.lineage import Lineage

    arg.check_choices("editing method", [method])
    if len(fact) != len(to):
        raise BadInput(
            f"--to must be given once for each --fact, got {len(to)} for {counted(len(fact), 'fact')}: add the others."
        )
    if len(fact) > 1 and (paraphrase or before):
        raise BadInput("--paraphrase and --from belong to one fact, got several: edit it alone, or leave them out.")
    layers = tuple(int(n) for n in arg.parse_numbers(layer, "--layer", whole=True)) if layer else ()
    asked = [*(neighbour or []), *(arg.read_text_lines(neighbours) if neighbours else [])]
    read = arg.neutral_texts(texts)
    lineage = Lineage.open(model, allow_pickle=allow_pickle).select(steps)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.editing.session import EditSettings
    from ontogeny.jobs.edit import edit, estimate_edit, plan_edit
    from ontogeny.jobs.edit.edit import EDITED_MODEL_FOLDER
    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions

    arg.check_compute(device, dtype)
    options = ModelOptions(device, dtype, tokenizer=tokenizer, allow_pickle=allow_pickle)
    facts = [_fact(text, goal) for text, goal in zip(fact, to, strict=True)]
    plan = plan_edit(
        lineage.checkpoints[-1],
        facts,
        read,
        EditSettings(method, layers, ridge=ridge, null_share=null_share),
        paraphrases=[text.rstrip() for text in paraphrase or []],
        neighbours=[text.rstrip() for text in asked],
        before=_object(before) if before.strip() else "",
        together=together,
        prefixes=prefixes,
        controls=controls,
        seed=seed,
        model=options,
    )
    if dry_run:
        estimate = estimate_edit(plan, options)
        lines = [
            f"{estimate.checkpoint}, about {estimate.parameters:,} parameters",
            f"{counted(estimate.facts, 'fact')} by {method} at layer {', '.join(map(str, estimate.layers))}",
            f"{counted(estimate.texts, 'text')} for the second moment, {controls} random changes of each kind",
            f"about {estimate.tokens:,} tokens, {format_duration(estimate.seconds)} on {device}",
        ]
        print_output(vars(estimate), lines, as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as watch:
        run = edit(plan, lineage, out, model=options, command=command_line(), on_progress=watch)
    rows = run.records("metric like 'edit_%'")
    lines = [
        f"{plan.checkpoint.label}, edited by {method}",
        *_table(rows),
        f"\nthe edited model is in {out / EDITED_MODEL_FOLDER}",
    ]
    data = {"run": str(out), "model": str(out / EDITED_MODEL_FOLDER), "method": method, "records": json_rows(rows)}
    print_output(data, [*lines, next_command(out, "show {} edits")], as_json=as_json)


def _fact(text: str, goal: str) -> "FactEdit":
    """The prompt without the braces, and the object as it continues it."""
    from ontogeny.editing.facts import FactEdit

    subject = ""
    if "{" in text or "}" in text:
        before, opened, rest = text.partition("{")
        subject, closed, after = rest.partition("}")
        if not opened or not closed or not subject.strip() or "{" in after or "}" in after:
            raise BadInput(
                f"--fact must have one subject in braces or none, got {text!r}: write 'The {{Eiffel Tower}} is in'."
            )
        text = f"{before}{subject}{after}"
    if not goal.strip():
        raise BadInput(f"--to must be the new object, got {goal!r}: give a word.")
    if not text.strip():
        raise BadInput(f"--fact must be the text before the object, got {text!r}: write a sentence without its end.")
    return FactEdit(text.rstrip(), _object(goal), subject)


def _object(text: str) -> str:
    """The object after a space, as it continues a prompt."""
    return f" {text.strip()}"


def _table(rows: "pd.DataFrame") -> list[str]:
    """One line a number: the edited model, the unedited one, and the range of each null."""
    lines = []
    coords = rows["coords"].map(dict)
    for metric, layer, value in (
        rows[rows["metric"].isin(["edit_null_rank", "edit_null_trace"])][["metric", "layer", "value"]]
        .drop_duplicates()
        .itertuples(index=False)
    ):
        what = "directions in the null space" if metric == "edit_null_rank" else "squared norm of the keys in it"
        lines.append(f"layer {layer:.0f}: {value:.2g} of the {what}")
    for number in sorted({int(c["fact"]) for c in coords}):
        for when in ("after_this", "after_all"):
            own = rows[[c["fact"] == str(number) and c["evaluated"] == when for c in coords]]
            if not own.empty:
                about = dict(own["coords"].iloc[0])
                moment = "" if when == "after_this" else ", after all edits"
                lines += [
                    "",
                    f"{about['prompt']} → {about['object']}{moment}",
                    f"{'':38}{'edited':>9}{'before':>9}  random change · random value",
                ]
                lines += [line for key, label in _LINES.items() if (line := _line(own, key, label))]
                lines += _weak_value(rows, number) if when == "after_this" else []
    return lines


def _weak_value(rows: "pd.DataFrame", number: int) -> list[str]:
    """A warning if no value of the layer gives the new object."""
    own = rows[rows["metric"].eq("edit_value_probability")]
    reached = own[own["coords"].map(lambda c: int(dict(c)["fact"]) == number)]["value"]
    if reached.empty or reached.iloc[0] >= _WEAK:
        return []
    return [
        f"the value that the edit aims at gives the new object a probability of {reached.iloc[0]:.2g} only: try another --layer, or "
        "other braces"
    ]


def _line(rows: "pd.DataFrame", key: tuple[str, str], label: str) -> str:
    metric, kind = key
    right_kind = rows["coords"].map(lambda c: dict(c).get("prompts") == kind)
    own = rows[rows["metric"].eq(metric) & rows["value"].notna() & right_kind]
    if own.empty:
        return ""
    by: dict[Any, Any] = {row.control if isinstance(row.control, str) else "": row for row in own.itertuples()}
    nulls = [f"{by[name].low:.3g} to {by[name].high:.3g}" for name in ("random_rank_one", "random_value") if name in by]
    return f"{label:38}{by[''].value:9.3g}{by['unedited'].value:9.3g}  {' · '.join(nulls)}"
