"""Evaluate vectors over the checkpoints of a lineage into a run directory: one unit a checkpoint and concept, none done twice.

The verdicts are made last, from the rows: what was tried in the whole run is corrected together.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput, CheckpointError
from ontogeny.jobs.evaluate.measure import evaluate_concept
from ontogeny.jobs.evaluate.plan import EvaluationPlan, check_model_shape
from ontogeny.jobs.evaluate.rows import evaluation_rows
from ontogeny.jobs.evaluate.text_scorers import TextScorer
from ontogeny.jobs.evaluate.verdicts import write_verdicts
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.run_json import EVALUATIONS_FOLDER, describe_concept, describe_run
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.lineage import Checkpoint, Lineage, fetch_checkpoint, weight_bytes, weight_fingerprint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import nearest_tokenizer, read_config
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import is_empty_run, run_lock
from ontogeny.storage.rollback import rollback_on_failure
from ontogeny.storage.run import Run

_UNIT_PREFIX = "evaluation-"


@dataclass(frozen=True)
class EvaluationRunOptions:
    device: str = "cpu"
    dtype: str = "float32"
    tokenizer: Path | None = None
    allow_pickle: bool = False
    command: str | None = None
    watch: ProgressCallback = ignore_progress


def evaluate(
    lineage: Lineage,
    asks: Sequence[EvaluationPlan],
    out: Path,
    how: EvaluationRunOptions | None = None,
    *,
    scorers: Sequence[TextScorer] = (),
) -> tuple[Run, list[str]]:
    """Write the rows of all concepts at all checkpoints, and the verdicts; with what is wrong with checkpoints that cannot be read.

    Raises:
        BadInput: a run of another lineage at `out`, other examples under a known name, or nothing that can be evaluated.
    """
    import torch

    how = how or EvaluationRunOptions()
    run = _existing_run(lineage, asks, out)
    good, faults = _readable_checkpoints(lineage, how)
    told = [how.dtype, sorted(scorer.name for scorer in scorers)]
    units = {
        (c, i): _evaluation_unit(c, one.prints, ask, told) for c, one in good.items() for i, ask in enumerate(asks)
    }
    missing = {c: [i for i in range(len(asks)) if not run.done(units[c, i])] for c in good}
    missing = {c: which for c, which in missing.items() if which}
    with run_lock(run.folder), rollback_on_failure(run, [units[c, i] for c, which in missing.items() for i in which]):
        _write_run_json(run, lineage, asks, good, how, sorted(scorer.name for scorer in scorers))
        standing = ReusableModel(how.device, getattr(torch, how.dtype), how.allow_pickle)
        done = len(good) - len(missing)
        for checkpoint, which in missing.items():
            try:
                folder = fetch_checkpoint(checkpoint, allow_pickle=how.allow_pickle)
                check_model_configs(asks, folder)
                model, _ = standing.load(folder, how.tokenizer or nearest_tokenizer(folder))
            except CheckpointError as fault:
                if len(lineage.checkpoints) == 1:
                    raise
                run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "failed": str(fault)})
                faults.append(f"{checkpoint.stage} {checkpoint.name}: {fault}")
                continue
            for i in which:
                _evaluate_checkpoint(run, lineage, checkpoint, model, asks[i], units[checkpoint, i], scorers, how, done)
            done += 1
        if not any(run.done(unit) for unit in units.values()):
            raise BadInput(faults[0])
        write_verdicts(run, lineage.name)
    return run, faults


@dataclass(frozen=True)
class _WeightIdentity:
    """What metadata tell of a checkpoint."""

    prints: str
    bytes: int


def _readable_checkpoints(
    lineage: Lineage, how: EvaluationRunOptions
) -> tuple[dict[Checkpoint, _WeightIdentity], list[str]]:
    """The checkpoints that can be read, and what is wrong with the others; an error where there is but one, or none is left."""
    good, faults = {}, []
    for c in lineage.checkpoints:
        try:
            size = weight_bytes(c, allow_pickle=how.allow_pickle)
            good[c] = _WeightIdentity(weight_fingerprint(c, allow_pickle=how.allow_pickle), size)
        except BadInput as fault:
            faults.append(f"{c.stage} {c.name}: {fault}")
    if not good:
        raise BadInput(faults[0].split(": ", 1)[1] if faults else f"{lineage.name} has no checkpoints.")
    return good, faults


def check_model_configs(asks: Sequence[EvaluationPlan], folder: Path) -> int:
    """Refuse, by config.json alone, what the model of a folder cannot do; its number of layers."""
    shape = read_config(folder)
    for ask in asks:
        check_model_shape(ask, layers=shape.num_hidden_layers, heads=shape.num_attention_heads, width=shape.hidden_size)
    return int(shape.num_hidden_layers)


def _evaluation_unit(checkpoint: Checkpoint, weights: str, ask: EvaluationPlan, more: Sequence[object] = ()) -> str:
    """Changes with the weights, their place, and everything that is asked."""
    place = [checkpoint.stage, checkpoint.step, checkpoint.name]
    return f"{_UNIT_PREFIX}{content_digest([place, weights, ask.key, *more])}"


def _evaluate_checkpoint(
    run: Run,
    lineage: Lineage,
    checkpoint: Checkpoint,
    model: Model,
    ask: EvaluationPlan,
    unit: str,
    scorers: Sequence[TextScorer],
    how: EvaluationRunOptions,
    done: int,
) -> None:
    began, name = time.monotonic(), f"{checkpoint.stage} {checkpoint.name}"

    def say(what: str) -> None:
        how.watch(TraceProgress(name, done, len(lineage.checkpoints), f"{ask.concept.name}: {what}"))

    found = evaluate_concept(model, ask, say=say)
    made = evaluation_rows(found, scorers=scorers, seed=ask.plan.seed)
    run.keep(unit, CheckpointStamp.of(lineage.name, unit, checkpoint).on(made))
    cost = {"passes": found.passes.total, **vars(found.passes), "seconds": round(time.monotonic() - began, 2)}
    run.log({"evaluated": ask.concept.name, "checkpoint": checkpoint.name, "stage": checkpoint.stage, **cost})


def _existing_run(lineage: Lineage, asks: Sequence[EvaluationPlan], out: Path) -> Run:
    names = [ask.concept.name for ask in asks]
    if not asks:
        raise BadInput("no concept was given. Name at least one file with -c.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"two concepts are called {min(twice)!r}. Rename one of the files.")
    run = Run(out)
    if not run.about_path.is_file():
        if out.exists() and not (out.is_dir() and is_empty_run(out)):
            raise BadInput(f"{out} exists and is no run directory. Choose an empty or a new folder with --out.")
        return run
    told = run.about
    if told["lineage"]["name"] != lineage.name:
        raise BadInput(f"{out} holds a run of {told['lineage']['name']}, not of {lineage.name}. Choose another --out.")
    known = {concept["name"]: concept["hash"] for concept in told["concepts"]}
    for concept in (ask.concept for ask in asks):
        if known.get(concept.name, concept.hash) != concept.hash:
            raise BadInput(
                f"{out} holds other examples under the name {concept.name!r}. Rename the file, or choose another --out."
            )
    return run


def _write_run_json(
    run: Run,
    lineage: Lineage,
    asks: Sequence[EvaluationPlan],
    good: Mapping[Checkpoint, _WeightIdentity],
    how: EvaluationRunOptions,
    scorers: Sequence[str],
) -> None:
    """run.json of a new run; into one that is there only what it does not name yet, and how each concept's vectors were judged last."""
    concepts: list[Concept] = [ask.concept for ask in asks]
    judged = {ask.concept.name: {**_concept_settings(ask, scorers), "dtype": how.dtype} for ask in asks}
    if not run.about_path.is_file():
        bytes_, prints = {c: one.bytes for c, one in good.items()}, {c: one.prints for c, one in good.items()}
        job = TracePlan(lineage, tuple(good), (), tuple(concepts), {}, TraceSettings(), {}, bytes_, prints)
        told = describe_run(job, run, warnings={c.name: () for c in concepts}, device=how.device, command=how.command)
        # Nothing is traced yet: a trace that follows sets the settings.
        run.describe(told | {"finished": True, "settings": {}, EVALUATIONS_FOLDER: judged})
        return
    told = run.about
    known = {entry["name"] for entry in told["concepts"]}
    new = [describe_concept(concept, ()) for concept in concepts if concept.name not in known]
    run.describe(
        told | {"concepts": [*told["concepts"], *new], EVALUATIONS_FOLDER: told.get(EVALUATIONS_FOLDER, {}) | judged}
    )


def _concept_settings(ask: EvaluationPlan, scorers: Sequence[str]) -> dict[str, Any]:
    """How one concept's vectors are judged, as run.json says it: `settings` there are those of a trace."""
    methods = [method if isinstance(method, str) else method.origin for method in ask.methods]
    beside = {"neutral_texts": len(ask.neutral), "tasks": sorted(ask.tasks), "scorers": list(scorers)}
    return {"methods": methods, **asdict(ask.plan), **beside}
