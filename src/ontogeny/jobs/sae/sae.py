"""Sparse autoencoder job: train and score at each checkpoint, then match the latents; resumed where it stopped."""

import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.dynamics.latent_history import latent_history
from ontogeny.errors import BadInput
from ontogeny.jobs import resumable
from ontogeny.jobs.inputs import as_lineage, as_run, output_folder
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.sae.plan import SaeEstimate, estimate_sae, floor_unit, sae_units
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, open_model, untrained_model
from ontogeny.models.shape import check_sites_exist
from ontogeny.sae.autoencoder import SparseAutoencoder
from ontogeny.sae.plan import SaePlan, split_texts
from ontogeny.sae.unit import measure_network, unpack_unit
from ontogeny.storage.files import content_digest
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from ontogeny.jobs.inputs import LineageSource

_STATES = "work"
"""Folder of a run with the states of unfinished trainings."""
_UNITS, _FLOOR = "units", "floor"
"""Settings in run.json beside those of the plan: units of the checkpoints and of the untrained network."""


@shows_progress
def sae(
    source: "LineageSource",
    texts: Sequence[str],
    plan: SaePlan,
    out: str | Path | None = None,
    *,
    model: ModelOptions | None = None,
    delete_behind: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Train sparse autoencoders at one site of each checkpoint, score them, and find out when each latent of the last one is born.

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        texts: At least ten; one in five is not trained on, and latents are scored and matched there.
        plan: Site, kinds, sizes and seeds of the autoencoders.
        out: Run directory, new or of an earlier job on the lineage; by default a temporary one.
        model: How models are loaded.
        delete_behind: Delete each downloaded checkpoint after its visit.
        command: The command line, for run.json.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: there are too few texts for the latents, no checkpoint can be read, it has no such site, or a model is not causal.
    """
    options = model or ModelOptions()
    lineage, parts = as_lineage(source, allow_pickle=options.allow_pickle), split_texts(texts)
    check_sites_exist(lineage.checkpoints[0], plan.site)
    run = resumable.open_run_directory(output_folder(out, "sae"), lineage)
    if run.exists():
        repair_run(run)
    readable, failures = resumable.readable_checkpoints(
        lineage, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer
    )
    units = sae_units(readable, texts, plan)
    missing = [checkpoint for checkpoint, unit in units.items() if not run.done(unit)]
    floor = floor_unit(readable[next(iter(readable))], texts, plan)
    sizes = {checkpoint: identity.bytes for checkpoint, identity in readable.items()}
    with resumable.described_session(
        run,
        lineage,
        [*units.values(), floor],
        sizes,
        failures,
        settings=asdict(plan) | {_UNITS: list(units.values()), _FLOOR: floor},
        device=options.device,
        command=command,
    ):
        done = 0

        def measure(network: Model, unit: str, label: str, stamp: CheckpointStamp, control: str | None = None) -> None:
            nonlocal done
            began = time.perf_counter()

            def report(step: int, steps: int) -> None:
                if step % 20 == 0:
                    on_progress(TraceProgress(label, done, len(missing) + 1, "training autoencoders", step, steps))

            state = run.folder / _STATES / f"{unit}.safetensors"
            rows, tensors = measure_network(network, parts, plan, state=state, control=control, on_step=report)
            run.keep(unit, stamp.on(rows), scores=tensors)
            done += 1
            run.log({"checkpoint": label, "seconds": time.perf_counter() - began})

        def visit(checkpoint: Checkpoint, folder: Path) -> None:
            if not run.done(floor):
                on_progress(TraceProgress("untrained network", done, len(missing) + 1, "reading texts"))
                fresh = untrained_model(
                    folder, seed=plan.seed, device=options.device, tokenizer=options.tokenizer_for(folder)
                )
                stamp = CheckpointStamp(lineage.name, floor)
                measure(fresh, floor, "untrained network", stamp, "untrained")
            on_progress(TraceProgress(checkpoint.label, done, len(missing) + 1, "reading texts"))
            stamp = CheckpointStamp.of(lineage.name, units[checkpoint], checkpoint)
            measure(open_model(folder, options), units[checkpoint], checkpoint.label, stamp)

        fetched = resumable.fetch_ahead(missing, options, delete_behind=delete_behind)
        failures += resumable.visit_checkpoints(run, fetched, visit, tolerant=len(lineage.checkpoints) > 1)
        resumable.check_any_done(run, units.values(), failures)
        measured = {checkpoint: unit for checkpoint, unit in units.items() if run.done(unit)}
        history = _keep_history(run, lineage.name, measured, floor, plan, on_progress)
        resumable.drop_replaced(run, [*units.values(), floor, history], coords=("latents", "sparsity"))
    return run


def _keep_history(
    run: Run,
    lineage: str,
    measured: dict[Checkpoint, str],
    floor: str,
    plan: SaePlan,
    on_progress: ProgressCallback,
) -> str:
    """Match the latents of all measured checkpoints, unless the run has these matches; the unit of the matches."""
    prefix = _history_prefix(plan, floor)
    unit = f"{prefix}-{content_digest(list(measured.values()))}"
    if run.done(unit):
        return unit
    names = list(measured.values())
    stamps = [CheckpointStamp.of(lineage, unit, checkpoint) for checkpoint in measured]

    def report(done: int, total: int) -> None:
        on_progress(TraceProgress("", done, total, "matching latents", phase="relating"))

    rows = latent_history(
        stamps,
        lambda i: unpack_unit(run.scores(names[i]), plan),
        unpack_unit(run.scores(floor), plan),
        plan,
        report,
    )
    run.keep(unit, rows)
    run.forget(prefix, but=unit)
    return unit


def _history_prefix(plan: SaePlan, floor: str) -> str:
    return "sae-history-" + content_digest([asdict(plan), floor])


def estimate(
    source: "LineageSource",
    texts: Sequence[str],
    plan: SaePlan,
    out: str | Path,
    model: ModelOptions | None = None,
) -> SaeEstimate:
    """Cost of `sae`; reads configs only.

    Raises:
        BadInput: as `sae`, as far as configs tell.
    """
    options = model or ModelOptions()
    lineage = as_lineage(source, allow_pickle=options.allow_pickle)
    split_texts(texts)
    check_sites_exist(lineage.checkpoints[0], plan.site)
    readable, _ = resumable.readable_checkpoints(
        lineage, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer
    )
    first = next(iter(readable.values()))
    return estimate_sae(sae_units(readable, texts, plan), texts, plan, Run(Path(out)), first.bytes)


def autoencoders_of_run(
    source: Run | str | Path, *, stage: str | None = None, step: int | None = None
) -> list[SparseAutoencoder]:
    """The autoencoders that a run trained at one checkpoint, by default the last, in the order of their settings.

    Raises:
        BadInput: the run has none there.
    """
    run = as_run(source)
    plan, rows = plan_of_run(run), last_scores(run, stage=stage, step=step)
    if rows.empty:
        raise BadInput(
            f"{run.folder} has no autoencoders at stage {stage}, step {step}: choose a checkpoint that it measured."
        )
    unit = rows[rows["metric"].eq("sae_l0")]["unit"].iloc[0]
    return list(unpack_unit(run.scores(str(unit)), plan).autoencoders)


def last_scores(run: Run, *, stage: str | None = None, step: int | None = None) -> "pd.DataFrame":
    """Records of the last checkpoint, or of one with this stage and step, by the plan that the run was last used for."""
    table = _rows_of_plan(run)
    order = {name: place for place, name in enumerate(run.about["lineage"]["stages"])}
    own = table[table["metric"].eq("sae_l0") & table["control"].isna()]
    for column, wanted in (("stage", stage), ("step", step)):
        own = own[own[column].eq(wanted)] if wanted is not None else own
    if own.empty:
        return own
    last = own.assign(place=own["stage"].map(order)).sort_values(["place", "step"]).tail(1)
    for column in ("stage", "step", "revision"):  # a model without a step has none in its rows either
        values = last[column].dropna().tolist()
        table = table[table[column].isin(values) if values else table[column].isna()]
    return table


def _rows_of_plan(run: Run) -> "pd.DataFrame":
    """Records of the plan that the run was last used for: it may hold those of other plans."""
    plan, settings, table = plan_of_run(run), run.about["settings"], run.records("metric like 'sae_%'")
    if _UNITS not in settings:  # written by an earlier version
        return table[table["site"].eq(plan.site)]
    history = _history_prefix(plan, settings[_FLOOR])
    return table[table["unit"].isin([*settings[_UNITS], settings[_FLOOR]]) | table["unit"].str.startswith(history)]


def plan_of_run(run: Run) -> SaePlan:
    """The plan of a sparse autoencoder job.

    Raises:
        BadInput: the run is of another job.
    """
    settings = run.about["settings"]
    if "permutations" not in settings or "site" not in settings:
        raise BadInput(f"{run.folder} holds no sparse autoencoders: name a run of that job.")
    known = {field.name for field in fields(SaePlan)}
    plan: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in settings.items() if name in known
    }
    return SaePlan(**plan)
