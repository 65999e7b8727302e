"""`ontogeny trace`: the main job."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontogeny.cli._arguments import check_device
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.jobs.trace.ray_cluster import RayCluster
    from ontogeny.lineage import Lineage
    from ontogeny.measurements.settings import TraceSettings


def trace_command(
    lineage: Annotated[
        str, typer.Argument(help="Hub repository, folder of checkpoints, single model, or lineage.toml.")
    ],
    concept: Annotated[
        list[str],
        typer.Option(
            "--concept",
            "-c",
            help="Concept file (CSV, TSV or JSONL) or the name of one from `ontogeny list concepts`; repeat for more.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory; one that exists is resumed or grown.")],
    steps: Annotated[
        str, typer.Option(help="all, log, log:8, last, every:10, a list 0,1000 or a range 1000-5000.")
    ] = "all",
    sites: Annotated[
        str,
        typer.Option(
            help="resid, attn, mlp, head, neuron, attn_resid, mlp_resid; head.3, mlp.2-5, resid.-1; separated by commas."
        ),
    ] = "resid,head",
    fits: Annotated[
        str, typer.Option(help="Fits, separated by commas; see `ontogeny list fits`.")
    ] = "logistic,mass_mean,pca,leace",
    kernels: Annotated[
        str, typer.Option(help="Kernels of the dependence: gaussian_50, gaussian_median, linear, imq.")
    ] = "gaussian_50,gaussian_median",
    protocol: Annotated[
        str, typer.Option(help="default, or paper: the tracing paper's own, to compare with its numbers.")
    ] = "default",
    position: Annotated[
        str | None,
        typer.Option(
            help="Which token is read: last, mean, mean:span, last:instruction, …; default: what the file says, else last."
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts, where it is not text or statement.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels, where it is not label or target, or the file has both.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples a concept, whole groups.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits, resamples and permutations.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="float32 (exact), bfloat16 or float16 (faster, results move).")
    ] = "float32",
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer folder, where the checkpoints have none.")] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts longer than the context to their last tokens.")
    ] = False,
    share_prefixes: Annotated[
        bool,
        typer.Option("--share-prefixes", help="Compute what texts share at their beginning (few-shot prompts) once."),
    ] = False,
    template: Annotated[
        bool, typer.Option("--template", help="Read texts as a user's turn in the tokenizer's chat template.")
    ] = False,
    untrained: Annotated[
        bool, typer.Option(help="Measure a random initialisation as a floor, where there is no step 0.")
    ] = True,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Also read pytorch_model.bin (weights only).")
    ] = False,
    delete_behind: Annotated[
        bool, typer.Option("--delete-behind", help="Delete each downloaded checkpoint after its visit.")
    ] = False,
    cache_size: Annotated[
        float, typer.Option(help="Keep activations for other fits and seeds, at most so many GB; 0 keeps none.", min=0)
    ] = 0,
    shard: Annotated[
        str | None,
        typer.Option(help="This process's share of the checkpoints, i/n from 0/n on; all write into one --out."),
    ] = None,
    executor: Annotated[
        str,
        # A bracket would be markup: unescaped it is not shown.
        typer.Option(help=r"process: in this one; ray: on workers of a Ray cluster, pip install 'ontogeny\[ray]'."),
    ] = "process",
    address: Annotated[
        str | None,
        typer.Option(help="Ray: a cluster that runs, auto or host:6379; else one is started here for this trace."),
    ] = None,
    gpus_per_model: Annotated[
        int, typer.Option(min=0, help="Ray: GPUs of each worker, all on one machine; the model is spread over them.")
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Ray: models at once; default: as many as the GPUs allow, else one a machine."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read and how long it may take; do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Trace concepts through a training run: probes with floors and intervals at every site of every checkpoint."""
    from ontogeny.cli._arguments import concept_from_argument
    from ontogeny.measurements.settings import TraceSettings

    settings = TraceSettings(
        sites=sites,
        fits=tuple(name.strip() for name in fits.split(",") if name.strip()),
        kernels=tuple(name.strip() for name in kernels.split(",") if name.strip()),
        protocol=protocol,  # type: ignore[arg-type]
        seed=seed,
        dtype=dtype,
        truncate=truncate,
        share_prefixes=share_prefixes,
        untrained=untrained,
    )
    from ontogeny.activations.cache import ActivationCache, default_cache_folder
    from ontogeny.jobs.run_json import command_line
    from ontogeny.jobs.trace import trace as job
    from ontogeny.jobs.trace.shards import Shard
    from ontogeny.lineage import Lineage

    cluster = _cluster(executor, address, gpus_per_model, workers, device)
    if cluster is None or cluster.device is None:
        check_device(device)
    chosen = Lineage.open(lineage, allow_pickle=allow_pickle).select(steps)
    concepts = [
        concept_from_argument(
            name, position=position, limit=limit, seed=seed, template=template, text=text, label=label
        )
        for name in concept
    ]
    if dry_run:
        _dry_run(chosen, concepts, settings, out, device, as_json, tokenizer, allow_pickle)
        return
    from ontogeny.cli._progress import progress_bar

    with progress_bar(quiet=quiet or as_json) as watch:
        run = job.trace(
            chosen,
            concepts,
            out,
            settings,
            device=device,
            tokenizer=tokenizer,
            allow_pickle=allow_pickle,
            delete_behind=delete_behind,
            shard=Shard.parse(shard) if shard else None,
            cluster=cluster,
            cache=ActivationCache(default_cache_folder(), int(cache_size * 1e9)) if cache_size else None,
            command=command_line(),
            on_progress=watch,
        )
    print_trace_summary(run.folder, as_json=as_json)


def print_trace_summary(folder: Path, *, as_json: bool) -> None:
    """Summary of a run on the terminal; exit code 1 where some checkpoints could not be traced."""
    from ontogeny.storage.run import Run

    run = Run.open(folder)
    failures = run.about["failures"]
    if as_json:
        from ontogeny.cli._output import run_outcome

        typer.echo(json.dumps(run_outcome(run), indent=2))
    else:
        from rich.console import Console

        from ontogeny.findings.timeline import order_like_run
        from ontogeny.report.terminal import print_summary

        print_summary(order_like_run(run.records(), run.about), Console())
        cut = run.query(
            "select concept, coords['what'] as what, max(value) as most, max(n) as n from records where metric = 'shortened' "
            "group by all order by all"
        )
        for row in cut.to_dict("records"):
            typer.echo(
                f"{row['concept']}: the beginning of {row['most']:.0f} of {row['n']} {row['what']} was left out, to fit the context"
            )
        # Plain text: a bracket in a path is no markup.
        for found in run.about.get("audit", {}).get("findings", []):
            if found["severity"] == "fault":
                typer.echo(
                    f"{typer.style('audit:', fg='red')} {found['checkpoints'][0]}: {found['kind']}: {found['what']}"
                )
        for failure in failures:
            typer.echo(f"{typer.style('not traced:', fg='red')} {failure['checkpoint']}: {failure['reason']}")
        typer.echo(
            f"\nrecords, directions and run.json are in {folder}; next: ontogeny report {shlex.quote(str(folder))}"
        )
    if failures:
        raise typer.Exit(1)


def _cluster(
    executor: str, address: str | None, gpus_per_model: int, workers: int | None, device: str
) -> "RayCluster | None":
    from ontogeny.jobs.trace.ray_cluster import RayCluster

    if executor not in ("process", "ray"):
        raise BadInput(f"--executor {executor} is not known. Choose process or ray; for an array of jobs give --shard.")
    if executor == "process":
        if address or gpus_per_model or workers:
            raise BadInput("--address, --gpus-per-model and --workers are of Ray. Add --executor ray.")
        return None
    # Each worker sees its own GPUs alone: how many it gets is asked for, not which.
    return RayCluster(address, gpus_per_model or int(device.startswith("cuda")), workers)


def _dry_run(
    lineage: "Lineage",
    concepts: "list[Concept]",
    settings: "TraceSettings",
    out: Path,
    device: str,
    as_json: bool,
    tokenizer: str | None,
    allow_pickle: bool,
) -> None:
    from dataclasses import asdict

    from ontogeny.jobs.trace.estimate import estimate_trace
    from ontogeny.jobs.trace.plan import check_plan_matches_run, plan_trace

    job = plan_trace(lineage, concepts, settings, allow_pickle=allow_pickle)
    found = estimate_trace(job, check_plan_matches_run(job, out), device=device, tokenizer=tokenizer)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    from rich.console import Console

    from ontogeny.cli._output import print_estimate

    print_estimate(found, job, Console())
