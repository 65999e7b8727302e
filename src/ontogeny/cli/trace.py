"""`ontogeny trace`: trace concepts through the checkpoints of a training run."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontogeny.cli import _arguments as arg
from ontogeny.cli._output import estimate_lines, positive_classes, print_failures, print_output, run_outcome
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ontogeny.activations.cache import ActivationCache
    from ontogeny.jobs.trace.ray_cluster import RayCluster
    from ontogeny.lineage import Lineage
    from ontogeny.measurements.settings import TraceSettings
    from ontogeny.storage.run import Run


def trace_command(
    lineage: arg.LineageArgument,
    concept: arg.ConceptNames,
    out: Annotated[Path, arg.output("Run directory; an existing run is resumed or extended.", "--out", "-o")],
    steps: arg.Steps = "all",
    sites: Annotated[
        str, arg.measure("resid, attn, mlp, head, neuron, attn_resid, mlp_resid; or parts: head.3, mlp.2-5, resid.-1.")
    ] = "resid,head",
    probes: Annotated[
        str, arg.measure("Probes, separated by commas; see `ontogeny list probes`.")
    ] = "logistic,mass_mean,pca,leace",
    kernels: Annotated[
        str, arg.measure("Kernels of the dependence measures: gaussian_50, gaussian_median, linear, imq.")
    ] = "gaussian_50,gaussian_median",
    protocol: Annotated[
        str, arg.measure("cross-fit, single-split, or paper: the protocol of the tracing paper.")
    ] = "cross-fit",
    untrained: Annotated[bool, arg.measure("Measure a random initialisation as a floor if there is no step 0.")] = True,
    causal: Annotated[
        bool,
        arg.measure("Ablate each concept's direction at the end of each stage: do its answers use it?", "--causal"),
    ] = False,
    planes: Annotated[
        int,
        arg.measure(
            "Checkpoints to read again for the picture of both classes in the plane of a probe; 0: none.", min=0
        ),
    ] = 0,
    texts: Annotated[
        bool,
        arg.texts("Keep the beginnings of at most 120 texts a concept, for the table of errors.", "--texts/--no-texts"),
    ] = True,
    position: Annotated[
        str | None,
        arg.texts("Tokens to read: last, mean, mean:span, last:instruction, … Default: the file's, or last."),
    ] = None,
    text_column: arg.TextColumn = None,
    label_column: arg.LabelColumn = None,
    positive: arg.Positive = None,
    ignore_column: arg.IgnoreColumn = None,
    limit: arg.Limit = None,
    truncate: Annotated[bool, arg.texts("Cut long texts to their last tokens.", "--truncate")] = False,
    template: arg.TemplateOption = "none",
    seed: arg.Seed = 0,
    device: arg.Device = "cpu",
    dtype: arg.DataType = "float32",
    tokenizer: arg.Tokenizer = None,
    share_prefixes: Annotated[
        bool, arg.compute("Compute shared beginnings of texts once.", "--share-prefixes")
    ] = False,
    allow_pickle: arg.AllowPickle = False,
    delete_behind: arg.DeleteBehind = False,
    cache_size: Annotated[
        float, arg.compute("Activation cache in GB, for other probes and seeds; 0: none.", min=0)
    ] = 0,
    shard: Annotated[
        str | None, arg.compute("Visit only share i/n of the checkpoints, from 0/n on. All shares need the same --out.")
    ] = None,
    # An unescaped bracket would be markup.
    executor: Annotated[
        str, arg.ray(r"process: this one; ray: workers of a Ray cluster, pip install 'ontogeny\[ray]'.")
    ] = "process",
    address: Annotated[str | None, arg.ray("Running cluster: auto or host:6379. Default: a new one.")] = None,
    gpus_per_model: Annotated[int, arg.ray("GPUs of each worker, over which its model is spread.", min=0)] = 0,
    workers: Annotated[int | None, arg.ray("Number of workers. Default: all GPUs, or one per machine.", min=1)] = None,
    dry_run: arg.DryRun = False,
    as_json: arg.AsJson = False,
    quiet: arg.Quiet = False,
) -> None:
    """Trace concepts through training: probes with floors and intervals at every site of every checkpoint."""
    from ontogeny.jobs.trace import finished
    from ontogeny.lineage import Lineage
    from ontogeny.measurements.settings import TraceSettings
    from ontogeny.models.shape import check_sites_exist

    # First what needs no torch: a typing error is answered at once.
    settings = TraceSettings(
        sites=sites,
        fits=tuple(name.strip() for name in probes.split(",") if name.strip()),
        kernels=tuple(name.strip() for name in kernels.split(",") if name.strip()),
        protocol=protocol,  # type: ignore[arg-type]
        seed=seed,
        dtype=dtype,
        truncate=truncate,
        share_prefixes=share_prefixes,
        untrained=untrained,
        causal=causal,
        planes=planes,
        texts=texts,
    )
    columns: dict[str, Any] = {
        "text": text_column,
        "label": label_column,
        "positive": positive,
        "ignore": ignore_column or (),
    }
    arg.check_concept_arguments(concept, **columns)
    checkpoints = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)
    check_sites_exist(checkpoints.checkpoints[0], sites)
    request = None
    if not dry_run and not shard:
        request = trace_request(
            checkpoints,
            concept,
            settings,
            **columns,
            position=position,
            limit=limit,
            template=template,
            tokenizer=tokenizer,
        )
    if finished.is_finished(out, request):
        _say_nothing_is_left(out, silent=quiet or as_json)
        print_trace_summary(out, as_json=as_json)
        return

    from ontogeny.cli._progress import progress_bar
    from ontogeny.jobs.run_json import command_line
    from ontogeny.jobs.trace import trace as job
    from ontogeny.jobs.trace.shards import Shard
    from ontogeny.models.loading import ModelOptions
    from ontogeny.models.multi_gpu import resolve_device
    from ontogeny.storage.run import Run

    part = Shard.parse(shard) if shard else None
    device = resolve_device(device)
    cluster = _cluster(executor, address, gpus_per_model, workers, device)
    if cluster is None or cluster.device is None:
        arg.check_compute(device)
    concepts = [
        arg.concept_from_argument(name, position=position, limit=limit, seed=seed, template=template, **columns)
        for name in concept
    ]
    options = ModelOptions(device, dtype, tokenizer, allow_pickle)
    if dry_run:
        from ontogeny.jobs.trace.digests import digests_for_estimate
        from ontogeny.jobs.trace.estimate import estimate_trace
        from ontogeny.jobs.trace.plan import plan_trace

        digests = digests_for_estimate(out)
        plan = plan_trace(
            checkpoints, concepts, settings, allow_pickle=allow_pickle, tokenizer=tokenizer, digests=digests
        )
        estimate = estimate_trace(plan, plan.open_run(out), options)
        print_output(asdict(estimate), estimate_lines(estimate, plan), as_json=as_json)
        return
    visits = len(Run(out).ledger())
    with progress_bar(quiet=quiet or as_json) as watch:
        run = job.trace(
            checkpoints,
            concepts,
            out,
            settings,
            model=options,
            delete_behind=delete_behind,
            shard=part,
            cluster=cluster,
            cache=_cache(cache_size),
            command=command_line(),
            on_progress=watch,
        )
    if request is not None:
        finished.write_stamp(run, request)
    if visits and len(run.ledger()) == visits:
        _say_nothing_is_left(out, silent=quiet or as_json)
    print_trace_summary(run.folder, as_json=as_json)


def trace_request(
    lineage: "Lineage",
    concepts: "Sequence[str]",
    settings: "TraceSettings",
    *,
    template: str = "none",
    tokenizer: Path | None = None,
    **reading: Any,
) -> str | None:
    """`request_digest` of this command; None where a template or a tokenizer is a file of its own.

    Args:
        reading: Options of the texts that were given: columns, position, limit.
    """
    from ontogeny.jobs.trace.finished import request_digest

    if template not in ("none", "own") or tokenizer is not None:
        return None
    given = {name: value for name, value in reading.items() if value}
    return request_digest(lineage, concepts, {**asdict(settings), **given, "template": template})


def _say_nothing_is_left(out: Path, *, silent: bool) -> None:
    if not silent:
        typer.echo(f"nothing is left to do: {out} holds all of this trace", err=True)


def _cache(gigabytes: float) -> "ActivationCache | None":
    if not gigabytes:
        return None
    from ontogeny.activations.cache import ActivationCache, default_cache_folder

    return ActivationCache(default_cache_folder(), int(gigabytes * 1e9))


def print_trace_summary(folder: Path, *, as_json: bool) -> None:
    """Print the summary of a run; exit code 1 if some checkpoints could not be traced."""
    from ontogeny.storage.run import Run

    run = Run.open(folder)
    about = run.about
    if as_json:
        print_output(run_outcome(run), [], as_json=True)
    else:
        from rich.console import Console

        from ontogeny.findings.selection import FINDING_ROWS, RecordSource
        from ontogeny.report.terminal import print_summary

        print_summary(RecordSource(run.query, about).rows(FINDING_ROWS), Console())
        for name, meaning in positive_classes(about["concepts"]).items():
            typer.echo(f"{name}: {meaning}")
        for note in about["lineage"].get("notes", []):
            typer.echo(f"{about['lineage']['name']}: {note}")
        if "tokenizer" in about:
            typer.echo(f"tokenizer: {about['tokenizer']}, not in the folders of the checkpoints")
        for concept in about["concepts"]:
            # Baselines on the surface of the texts are a column of the table.
            for warning in (w for w in concept["warnings"] if "surface" not in w):
                typer.echo(f"{typer.style('!', fg='yellow')} {concept['name']}: {warning}")
        shortened = run.query(
            "select concept, coords['what'] as what, max(value) as most, max(n) as n from records where metric = 'shortened' "
            "group by all order by all"
        )
        for row in shortened.to_dict("records"):
            typer.echo(
                f"{row['concept']}: the beginning of {row['most']:.0f} of {row['n']} {row['what']} was left out, to fit the context"
            )
        for line in _template_lines(run):
            typer.echo(line)
        # Plain text: a bracket in a path is not markup.
        for found in about.get("audit", {}).get("findings", []):
            if found["severity"] == "fault":
                title = typer.style("audit:", fg="red")
                typer.echo(f"{title} {found['checkpoints'][0]}: {found['kind']}: {found['what']}")
        print_failures("not traced:", about["failures"])
        report = f"ontogeny report {shlex.quote(str(folder))}"
        typer.echo(f"\nrecords, directions and run.json are in {folder}; next: {report}")
    if about["failures"]:
        raise typer.Exit(1)


def _template_lines(run: "Run") -> "Iterator[str]":
    """For each concept for which a template was asked, the stages that were read in one and those that were read bare."""
    rows = run.query(
        "select concept, stage, max(value) as inside from records where metric = 'in_template' and stage is not null group by all"
    )
    order = list(run.about["lineage"]["stages"])
    for concept, table in rows.groupby("concept"):
        inside, bare = (
            ", ".join(sorted(table["stage"][table["inside"].eq(value)], key=order.index)) for value in (1, 0)
        )
        if not inside:
            yield f"{concept}: read bare, since no checkpoint has a chat template"
        else:
            yield f"{concept}: read in a template at {inside}" + f"; bare at {bare}, which has none" * bool(bare)


def _cluster(
    executor: str, address: str | None, gpus_per_model: int, workers: int | None, device: str
) -> "RayCluster | None":
    from ontogeny.jobs.trace.ray_cluster import RayCluster

    if executor not in ("process", "ray"):
        raise BadInput(f"--executor must be process or ray, got {executor}: for an array of jobs use --shard.")
    if executor == "process":
        if address or gpus_per_model or workers:
            raise BadInput("--address, --gpus-per-model and --workers need Ray: add --executor ray.")
        return None
    # Ray shows each worker its own GPUs only, so the option gives their number, not their indices.
    return RayCluster(address, gpus_per_model or int(device.startswith("cuda")), workers)
