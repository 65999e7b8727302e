"""`ontogeny sae`: sparse autoencoders of each checkpoint, and when each latent of the last one is born."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._command import with_options
from ontogeny.cli._output import counted, format_bytes, format_duration, next_command, print_output, visited_line
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.jobs.sae import SaePlan
    from ontogeny.storage.run import Run


def sae_command(
    lineage: arg.LineageArgument,
    texts: Annotated[
        str,
        arg.measure(
            "Texts that are read: a text file (a text a line), a table, or a concept. One in five is held out."
        ),
    ],
    out: Annotated[Path, arg.output("Run directory.", "--out", "-o")],
    site: Annotated[str, arg.measure("Site whose activations are decomposed, as in resid.2 or mlp.2.")],
    steps: arg.Steps = "all",
    activations: Annotated[
        str, arg.measure("Kinds, separated by commas: relu, topk, jumprelu, sparsemax.", "--activation")
    ] = "topk",
    latents: Annotated[str, arg.measure("Numbers of latents, separated by commas.")] = "256",
    k: Annotated[str, arg.measure("Latents of a token that fire, for topk; separated by commas.")] = "16",
    penalties: Annotated[
        str | None,
        arg.measure("Weights of the sparsity penalty, for the other kinds; separated by commas.", "--penalty"),
    ] = None,
    seeds: Annotated[int, arg.measure("Autoencoders of each kind and size.")] = 2,
    training_steps: Annotated[int, arg.measure("Training steps of the autoencoders.")] = 1000,
    batch: Annotated[int, arg.measure("Tokens per training step.")] = 512,
    learning_rate: Annotated[float, arg.measure("Learning rate of the autoencoders.")] = 3e-3,
    tokens: Annotated[int, arg.measure("Tokens of a text that are read, from its beginning.")] = 128,
    saelens: Annotated[
        Path | None,
        arg.output("Also write the autoencoders of the last checkpoint into this folder, in the format of SAELens."),
    ] = None,
    seed: Annotated[int, arg.compute("First seed of the autoencoders, and seed of permutations.")] = 0,
    device: arg.Device = "cpu",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    delete_behind: arg.DeleteBehind = False,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Train sparse autoencoders at each checkpoint, score them, and match their latents across checkpoints and seeds."""
    from ontogeny.lineage import Lineage

    sizes, counts = arg.parse_numbers(latents, "--latents", whole=True), arg.parse_numbers(k, "--k", whole=True)
    weights = arg.parse_numbers(penalties, "--penalty") if penalties is not None else []
    read = arg.neutral_texts(texts)
    checkpoints = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.run_json import command_line
    from ontogeny.jobs.sae import SaePlan, estimate, sae
    from ontogeny.models.loading import ModelOptions

    plan = SaePlan(
        site=site,
        activations=tuple(name.strip() for name in activations.split(",") if name.strip()),
        latents=tuple(map(int, sizes)),
        k=tuple(map(int, counts)),
        penalties=tuple(weights),
        seeds=seeds,
        training_steps=training_steps,
        batch=batch,
        learning_rate=learning_rate,
        most_tokens=tokens,
        seed=seed,
    )
    if saelens is not None and "sparsemax" in plan.activations:
        raise BadInput("SAELens has no sparsemax: leave `saelens` out, or train other kinds.")
    arg.check_compute(device)
    model = ModelOptions(device, tokenizer=tokenizer, allow_pickle=allow_pickle)
    if dry_run:
        cost = estimate(checkpoints, read, plan, out, model)
        lines = [
            f"{visited_line(checkpoints)}; {cost.checkpoints_to_do} to do",
            f"{counted(cost.autoencoders, 'autoencoder')} of each checkpoint, {counted(training_steps, 'step')} each",
            f"{counted(cost.texts, 'text')}, about {cost.tokens:,} tokens to train on",
            f"time: about {format_duration(cost.seconds)}; disk: about {format_bytes(cost.disk_bytes)} in the run directory",
        ]
        print_output(vars(cost), lines, as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as watch:
        run = sae(
            checkpoints,
            read,
            plan,
            out,
            model=model,
            delete_behind=delete_behind,
            command=command_line(),
            on_progress=watch,
        )
    found = _last_scores(run)
    exported = _export(run, plan, saelens) if saelens is not None else []
    lines = [
        visited_line(checkpoints),
        *(_line(row) for row in found),
        *(f"written for SAELens: {path}" for path in exported),
        next_command(out, "show {} sparse_autoencoders"),
    ]
    print_output({"run": str(out), "last_checkpoint": found, "saelens": exported}, lines, as_json=as_json)
    for failure in run.failures:
        typer.echo(f"not read: {failure.stage} {failure.checkpoint}: {with_options(failure.reason)}", err=True)


def _last_scores(run: "Run") -> list[dict[str, Any]]:
    """Scores of the autoencoders of the last checkpoint, and the shares of their latents that others find."""
    from ontogeny.jobs.sae.sae import last_scores

    rows = last_scores(run)
    found = list[dict[str, Any]]()
    for key, group in rows.groupby([rows["method"], rows["coords"].map(_size_of), "seed"], sort=False):
        method, size, number = map(str, key)
        shares = {str(r.control): r.value for r in group[group["metric"].eq("sae_matched")].itertuples()}
        measured = {str(r.metric): r.value for r in group[group["control"].isna()].itertuples()}
        found.append({"activation": method, "size": size, "seed": int(float(number)), **measured, "matched": shares})
    return found


def _size_of(coords: Any) -> str:
    known = dict(coords)
    return f"{known['latents']} latents, {known['sparsity']}"


def _line(row: dict[str, Any]) -> str:
    matched, scores = row["matched"], row
    parts = [f"{name.replace('_', ' ')} {value:.0%}" for name, value in matched.items() if value == value]
    return (
        f"  {row['activation']}, {row['size']}, seed {row['seed']}: L0 {scores['sae_l0']:.1f}, explained {scores['sae_explained']:.3f}, "
        f"loss recovered {scores['sae_loss_recovered']:.3f}, dead {scores['sae_dead']:.0%}; matched: {', '.join(parts)}"
    )


def _export(run: "Run", plan: "SaePlan", folder: Path) -> list[str]:
    from ontogeny.jobs.sae import autoencoders_of_run
    from ontogeny.sae import save_saelens
    from ontogeny.sites import Site

    written = []
    for member, autoencoder in zip(plan.members, autoencoders_of_run(run), strict=True):
        sparsity = f"k{member.k}" if member.activation == "topk" else f"penalty{member.penalty_weight:g}"
        name = f"{member.activation}-{member.latents}-{sparsity}-seed{member.seed}"
        at = save_saelens(autoencoder, folder / name, model=run.about["lineage"]["name"], site=Site.parse(plan.site))
        written.append(str(at))
    return written
