"""`ontogeny lens`: how far each layer of each checkpoint already holds the model's own output."""

from pathlib import Path
from typing import Annotated, cast

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import counted, next_command, print_output, visited_line
from ontogeny.errors import BadInput


def lens_command(
    lineage: arg.LineageArgument,
    texts: Annotated[str, arg.measure("Texts that are read: a text file (a text a line), a table, or a concept.")],
    out: Annotated[Path, arg.output("Run directory.", "--out", "-o")],
    steps: arg.Steps = "all",
    lenses: Annotated[
        str,
        arg.measure(
            "Lenses, separated by commas: logit, tuned (fitted), jacobian (slow: a backward pass a dimension)."
        ),
    ] = "logit,tuned",
    limit: Annotated[int, arg.measure("Texts that are read, evenly spaced.")] = 64,
    tokens: Annotated[int, arg.measure("Tokens of a text that are read, from its beginning.")] = 64,
    seed: Annotated[int, arg.compute("Seed of the fits.")] = 0,
    device: arg.Device = "cpu",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    delete_behind: arg.DeleteBehind = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Read each layer of each checkpoint through a lens: agreement with the final output, divergence, corpus error of fitted lenses."""
    from ontogeny.lineage import Lineage

    read = arg.neutral_texts(texts)
    checkpoints = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.lens import LensSettings, lens
    from ontogeny.jobs.run_json import command_line
    from ontogeny.models.loading import ModelOptions
    from ontogeny.records import checkpoint_label

    names = tuple(name.strip() for name in lenses.split(",") if name.strip())
    settings = LensSettings(lenses=names, most_texts=limit, most_tokens=tokens, seed=seed)
    arg.check_compute(device)
    model = ModelOptions(device, tokenizer=tokenizer, allow_pickle=allow_pickle)
    with progress_bar(quiet=quiet or as_json) as watch:
        run = lens(
            checkpoints,
            read,
            out,
            settings,
            model=model,
            delete_behind=delete_behind,
            command=command_line(),
            on_progress=watch,
        )
    rows = run.records("metric = 'lens_agreement' and not isnan(value)")
    if rows.empty:
        raise BadInput(f"{out} holds no lens: give longer texts.")
    half: dict[str, int | None] = {}
    order = {stage.name: place for place, stage in enumerate(checkpoints.stages)}
    rows = rows.assign(place=rows["stage"].map(order)).sort_values(["method", "place", "step", "layer"])
    for place, own in rows.groupby(["stage", "step", "revision", "method"], dropna=False, sort=False):
        stage, step, revision, name = cast("tuple[str, float, str, str]", place)
        reached = own[own["value"].ge(0.5)]["layer"]
        label = f"{name}, {checkpoint_label(stage, step)}"
        label += f" ({revision})" * (label in half)  # of several models without a step
        half[label] = int(reached.iloc[0]) if len(reached) else None
    lines = [
        visited_line(checkpoints),
        f"{counted(len(rows), 'row')} of agreement with the final output",
        *(
            f"  {place}: {'no layer' if layer is None else f'resid.{layer}'} names the final token for half of the tokens"
            for place, layer in half.items()
        ),
        next_command(out, "show {} lens"),
    ]
    print_output({"run": str(out), "first_layer_of_half": half}, lines, as_json=as_json)
