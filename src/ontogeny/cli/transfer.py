"""`ontogeny transfer`: probes and vectors of each checkpoint, tried on every other one, on one target, or on another model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.jobs.transfer.plan import TransferSettings
    from ontogeny.lineage import Lineage
    from ontogeny.storage.run import Run


def transfer_command(
    lineage: Annotated[str, typer.Argument(help="Hub repository, folder of checkpoints, or lineage.toml.")],
    concept: Annotated[
        list[str],
        typer.Option(
            "--concept", "-c", help="Concept file or the name of one from `ontogeny list concepts`; repeat for more."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; what is not yet traced is traced into it first.")
    ] = None,
    from_run: Annotated[
        Path | None,
        typer.Option("--from", help="A run that holds the trace: each checkpoint is loaded once, rows go there."),
    ] = None,
    steps: Annotated[str, typer.Option(help="As for trace: all, log:8, last, 0,1000 or base=log:4;sft=last.")] = "all",
    into: Annotated[
        str | None, typer.Option(help="Move all vectors into one checkpoint only: STAGE:STEP, STAGE:last, last.")
    ] = None,
    onto: Annotated[
        str | None,
        typer.Option(
            help="Map the last checkpoint's vectors into another model: a folder, repository or lineage.toml."
        ),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="Where vectors are read and put, such as resid.3; default: the concept's best site."),
    ] = None,
    effect: Annotated[bool, typer.Option(help="Also steer with the vectors; else probes and cosines alone.")] = True,
    alpha: Annotated[float, typer.Option(help="How many times its length a vector is added.")] = 1.0,
    length: Annotated[
        str,
        typer.Option(help="target: all vectors as long as the target's own (unit × std); source: as at their source."),
    ] = "target",
    equal_cost: Annotated[
        float | None, typer.Option(help="Compare vectors where each costs so many nats per token on neutral text.")
    ] = None,
    controls: Annotated[int, typer.Option(help="Random directions of the same length, the null of an effect.")] = 200,
    shuffles: Annotated[
        int, typer.Option(help="Directions of shuffled labels, of the same length: the other null.")
    ] = 200,
    neutral: Annotated[
        Path | None, typer.Option(help="Text file, one neutral text a line; default: texts of the other concepts.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples a concept, whole groups.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the splits; default 0, or the run's own.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer folder, where the checkpoints have none.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also read pytorch_model.bin (weights only).")
    ] = False,
    delete_behind: Annotated[
        bool, typer.Option("--delete-behind", help="Delete each downloaded checkpoint after its visit.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be loaded and tried; do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Carry probes and vectors from checkpoint to checkpoint: AUROC, cosine, effect and side effect of each on each."""
    if (out is None) == (from_run is None):
        raise BadInput("a transfer writes into one run. Name it with --out, or with --from where it is traced already.")
    from ontogeny.jobs.transfer.plan import TransferSettings

    options = TransferSettings(
        into=into,
        effect=effect,
        alpha=alpha,
        length=length,  # type: ignore[arg-type]
        equal_cost=equal_cost,
        controls=controls,
        shuffles=shuffles,
        neutral=_lines(neutral),
        site=site,
    )
    from ontogeny.cli._arguments import check_device, concept_from_argument
    from ontogeny.lineage import Lineage

    check_device(device)
    chosen = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)
    concepts = [concept_from_argument(name, limit=limit, seed=seed or 0) for name in concept]
    folder = out or from_run
    assert folder is not None
    if dry_run:
        _dry_run(chosen, concepts, options, folder, from_run is not None, seed, as_json, allow_pickle)
        return
    from dataclasses import replace

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.run_json import command_line
    from ontogeny.jobs.transfer import transfer

    settings = None if seed is None else replace(transfer.DEFAULT_READING_SETTINGS, seed=seed)
    named = Path(tokenizer) if tokenizer else None
    with progress_bar(quiet=quiet or as_json) as watch:
        how = transfer.TransferRunOptions(device, named, allow_pickle, delete_behind, command_line(), watch)
        if onto:
            from ontogeny.jobs.transfer.cross_model import transfer_to_model as carry

            last = chosen.select("last")
            _, run = transfer.ensure_traced(last, concepts, folder, settings, how, traced=from_run is not None)
            unit = carry(run, last, concepts, onto, options, how)
        else:
            traced = from_run is not None
            run = transfer.transfer(chosen, concepts, folder, options, settings, traced=traced, how=how)
    if onto:
        _print_cross_model(run, unit, as_json)
    else:
        _print_verdicts(run, [c.name for c in concepts], as_json)


def _lines(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        texts = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read as text ({error}). Give a file with one neutral text a line.") from None
    if not texts:
        raise BadInput(f"{file} holds no text. Give one neutral text a line.")
    return texts


def _dry_run(
    lineage: "Lineage",
    concepts: "list[Concept]",
    options: "TransferSettings",
    folder: Path,
    traced: bool,
    seed: int | None,
    as_json: bool,
    allow_pickle: bool,
) -> None:
    from dataclasses import asdict

    from ontogeny.jobs.transfer.estimate import estimate_transfer

    found = estimate_transfer(lineage, concepts, folder, options, traced=traced, seed=seed, allow_pickle=allow_pickle)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo(
        f"{found.sources} checkpoints give their vectors, {found.targets} take them; "
        f"{found.to_trace} still to be traced, {found.loads} loads in all (each at most twice)"
    )
    typer.echo(f"{found.pairs} pairs × {len(concepts)} concepts; {found.trials} vectors tried in all, nulls among them")


def _print_verdicts(run: "Run", names: list[str], as_json: bool) -> None:
    from dataclasses import asdict

    from ontogeny.findings.transfer_verdicts import stage_transfer_table, transfer_verdicts

    records, about = run.records("starts_with(metric, 'transfer_')"), run.about
    told, table = transfer_verdicts(records, about, names), stage_transfer_table(records, about, names)
    if as_json:
        made = {"verdicts": [asdict(v) | {"sentence": v.sentence} for v in told], "stages": table.to_dict("records")}
        typer.echo(json.dumps(made, indent=2, default=str))
        return
    last: dict[str, str] = {verdict.concept: verdict.sentence for verdict in told}
    for row in table.to_dict("records"):
        sure = f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        typer.echo(
            f"{row['concept']}: probe of {row['source']} on {row['target']}: AUROC {sure}, cosine {row['cosine']:.2f}"
        )
    for sentence in last.values():
        typer.echo(sentence)
    typer.echo(f"\nrows are in {run.folder}; next: ontogeny show {run.folder} transfer")


def _print_cross_model(run: "Run", unit: str, as_json: bool) -> None:
    from ontogeny.storage.run import sql_text

    found = run.query(
        "select concept, site, metric, coords['map'] as map, control, coords['outcome'] as outcome, value, low, high, n, note "
        f"from records where unit = {sql_text(unit)} order by concept, metric, map, control nulls first"
    )
    if as_json:
        typer.echo(found.to_json(orient="records", indent=2))
        return
    for row in found.to_dict("records"):
        sure = "" if row["low"] != row["low"] else f" [{row['low']:.2f}, {row['high']:.2f}]"
        what = " ".join(str(row[c]) for c in ("map", "control") if isinstance(row[c], str))
        typer.echo(f"{row['concept']} at {row['site']}, {row['metric']}, {what}: {row['value']:.2f}{sure}")
    typer.echo(f"\nrows are in {run.folder}")
