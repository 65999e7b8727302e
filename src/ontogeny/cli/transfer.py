"""`ontogeny transfer`: try the probes and vectors of each checkpoint on the others, on one target, or on another model."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import (
    controls_line,
    controls_power,
    counted,
    interval_text,
    json_rows,
    next_command,
    number_text,
    print_output,
    visited_line,
)
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.storage.run import Run


def transfer_command(
    lineage: arg.LineageArgument,
    concept: arg.ConceptNames,
    out: Annotated[
        Path | None,
        arg.output("Run directory; missing checkpoints are traced first. Required without --run.", "--out", "-o"),
    ] = None,
    run: Annotated[
        Path | None, arg.output("Run that holds the trace of all checkpoints; rows are added to it.")
    ] = None,
    steps: arg.Steps = "all",
    target: Annotated[str | None, arg.measure("Only target: STAGE:STEP, STAGE:last, last. Default: each.")] = None,
    to_model: Annotated[
        str | None, arg.measure("Map the last vectors into this other model: a folder, repository or lineage.toml.")
    ] = None,
    site: arg.SiteName = None,
    effect: Annotated[bool, arg.steering("Also steer with the vectors; else only probes and cosines.")] = True,
    alpha: Annotated[str, arg.steering("Multiple of the vector that is added; one number.")] = "1",
    length: Annotated[
        str, arg.steering("Length of vectors: target (of the target's own, unit × std) or source (as at their source).")
    ] = "target",
    equal_kl: Annotated[
        float | None, arg.steering("Compare vectors at this KL on neutral text, nats per token.")
    ] = None,
    controls: arg.Controls = 200,
    shuffles: arg.Shuffles = 200,
    neutral: arg.Neutral = None,
    positive: arg.Positive = None,
    ignore_column: arg.IgnoreColumn = None,
    limit: arg.Limit = None,
    template: Annotated[str | None, arg.texts(f"{arg.TEMPLATE_HELP} Default: none, or that of the run.")] = None,
    seed: Annotated[int | None, arg.compute("Seed of the splits. Default: 0, or that of the run.")] = None,
    device: arg.Device = "cpu",
    tokenizer: arg.Tokenizer = None,
    allow_pickle: arg.AllowPickle = False,
    delete_behind: arg.DeleteBehind = False,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Transfer probes and vectors between checkpoints: AUROC, cosine, effect and side effects of each on each."""
    from ontogeny.lineage import Lineage
    from ontogeny.sites import Site

    # First what needs no torch: a typing error is answered at once.
    folder, traced = out or run, run is not None
    if folder is None or (traced and out):
        raise BadInput("give --out, or --run if the checkpoints are already traced, and not both.")
    alphas = arg.parse_numbers(alpha, "--alpha")
    if len(alphas) > 1:
        raise BadInput(f"--alpha of a transfer must be one number, got {alpha}: run one transfer for each.")
    arg.check_choices("length of a vector", [length])
    columns: dict[str, Any] = {"positive": positive, "ignore": ignore_column or ()}
    arg.check_concept_arguments(concept, **columns)
    if site is not None:
        Site.parse(site)
    checkpoints = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)
    if target is not None:
        checkpoints.split_target(target)

    from ontogeny.cli._progress import progress_bar
    from ontogeny.data.templates import parse_template
    from ontogeny.jobs.monitor.monitor import check_template_of_run
    from ontogeny.jobs.run_json import command_line
    from ontogeny.jobs.transfer.cross_model import transfer_to_model
    from ontogeny.jobs.transfer.estimate import estimate_transfer
    from ontogeny.jobs.transfer.plan import DEFAULT_READING_SETTINGS, TransferSettings
    from ontogeny.jobs.transfer.transfer import transfer
    from ontogeny.models.loading import ModelOptions
    from ontogeny.storage.run import Run

    options = TransferSettings(
        into=target,
        effect=effect,
        alpha=alphas[0],
        length=length,  # type: ignore[arg-type]
        equal_cost=equal_kl,
        controls=controls,
        shuffles=shuffles,
        neutral=tuple(arg.neutral_texts(neutral)),
        site=site,
    )
    arg.check_compute(device)
    model = ModelOptions(device, tokenizer=tokenizer, allow_pickle=allow_pickle)
    concepts = [
        arg.concept_from_argument(name, limit=limit, seed=seed or 0, template=template or "none", **columns)
        for name in concept
    ]
    if template is not None and Run(folder).exists():
        check_template_of_run(Run.open(folder), [one.name for one in concepts], parse_template(template))
    reading = None if seed is None else replace(DEFAULT_READING_SETTINGS, seed=seed)
    if dry_run:
        estimate = estimate_transfer(
            checkpoints, concepts, folder, options, reading=reading, traced=traced, model=model
        )
        power = controls_power(estimate.effects, controls) if estimate.effects else {}
        lines = [
            visited_line(checkpoints),
            f"{counted(estimate.sources, 'source checkpoint')}, {counted(estimate.targets, 'target')}; "
            f"{estimate.to_trace} still to be traced, {counted(estimate.loads, 'load')} in all (each at most twice)",
            f"{counted(estimate.pairs, 'pair')} × {counted(len(concepts), 'concept')}; "
            f"{counted(estimate.trials, 'vector')} in all, with nulls",
            *([f"each concept: {controls_line(power)}"] if power else []),
        ]
        print_output(asdict(estimate) | power, lines, as_json=as_json)
        return
    with progress_bar(quiet=quiet or as_json) as watch:
        how: dict[str, Any] = {
            "reading": reading,
            "traced": traced,
            "model": model,
            "delete_behind": delete_behind,
            "command": command_line(),
            "on_progress": watch,
        }
        if to_model:
            made, unit = transfer_to_model(checkpoints, concepts, folder, to_model, options, **how)
        else:
            made, unit = transfer(checkpoints, concepts, folder, options, **how), None
    if unit:
        _print_cross_model(made, unit, as_json)
    else:
        _print_verdicts(made, [c.name for c in concepts], as_json)


def _print_verdicts(run: "Run", names: list[str], as_json: bool) -> None:
    from ontogeny.findings.transfer_verdicts import stage_transfer_table, transfer_verdicts

    records, about = run.records("starts_with(metric, 'transfer_')"), run.about
    verdicts, stages = transfer_verdicts(records, about, names), stage_transfer_table(records, about, names)
    pairs = stages.to_dict("records")
    data = {"verdicts": [asdict(v) | {"sentence": v.sentence} for v in verdicts], "stages": pairs}
    lines = [
        f"{row['concept']}: probe of {row['source']} on {row['target']}: "
        f"AUROC {interval_text(row)}, cosine {number_text(row['cosine'])}"
        for row in pairs
    ]
    last = {verdict.concept: verdict.sentence for verdict in verdicts}
    print_output(data, [*lines, *last.values(), next_command(run.folder, "show {} transfer")], as_json=as_json)


def _print_cross_model(run: "Run", unit: str, as_json: bool) -> None:
    from ontogeny.storage.record_filter import sql_text

    rows = run.query(
        "select concept, site, metric, coords['map'] as map, coords['dose'] as dose, control, "
        "coords['outcome'] as outcome, value, low, high, n, note "
        f"from records where unit = {sql_text(unit)} order by concept, metric, map, "
        "try_cast(dose as double) nulls first, control nulls first"
    )
    lines = []
    for row in rows.to_dict("records"):
        value = interval_text(row)
        kind = " ".join(str(row[c]) for c in ("map", "dose", "control") if isinstance(row[c], str))
        lines.append(f"{row['concept']} at {row['site']}, {row['metric']}, {kind}: {value}")
    print_output(json_rows(rows), [*lines, f"\nrows are in {run.folder}"], as_json=as_json)
