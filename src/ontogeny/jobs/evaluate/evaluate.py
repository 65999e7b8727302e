"""Evaluate steering vectors over the checkpoints of a lineage into a run directory: one unit per checkpoint and concept.

The verdicts are computed last, from the rows, and corrected over everything that the run tried.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ontogeny.activations.activations import template_rows
from ontogeny.data.templates import template_name
from ontogeny.jobs import resumable
from ontogeny.jobs.evaluate.measure import evaluate_concept
from ontogeny.jobs.evaluate.plan import EvaluationPlan, check_model_shape
from ontogeny.jobs.evaluate.rows import evaluation_rows
from ontogeny.jobs.evaluate.verdicts import write_verdicts
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.run_json import EVALUATIONS_FOLDER, describe_concept, describe_run
from ontogeny.lineage import Checkpoint, Lineage
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions, read_config
from ontogeny.models.reusable import ReusableModel
from ontogeny.steering.text_scorers import TextScorer
from ontogeny.storage.files import content_digest
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run


def evaluate(
    lineage: Lineage,
    plans: Sequence[EvaluationPlan],
    out: str | Path,
    *,
    model: ModelOptions | None = None,
    scorers: Sequence[TextScorer] = (),
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> tuple[Run, list[resumable.Failure]]:
    """Write the rows of all concepts at all checkpoints, and the verdicts. Finished units are not computed again.

    Args:
        plans: One per concept.
        out: Run directory, new or of any run of the same lineage.
        scorers: Score the sampled continuations.
        command: The command line, for run.json.

    Returns:
        The run, and the checkpoints that could not be evaluated.

    Raises:
        BadInput: `out` holds a run of another lineage or of other examples, or no checkpoint can be evaluated.
    """
    options, concepts = model or ModelOptions(), [plan.concept for plan in plans]
    resumable.check_concepts(concepts)
    run = resumable.open_run_directory(out, lineage, concepts)
    repair_run(run)
    weights, failures = resumable.readable_checkpoints(
        lineage, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer
    )
    resumable.check_own_templates(concepts, weights, options.tokenizer)
    beside = {"scorers": sorted(scorer.name for scorer in scorers), "dtype": options.dtype}
    units = {
        (checkpoint, plan.concept.name): resumable.unit_in_run(
            run,
            _unit_prefix(checkpoint, plan, beside) + identity.whole,
            _earlier_unit_key(checkpoint, identity, plan, beside),
        )
        for checkpoint, identity in weights.items()
        for plan in plans
    }
    by_concept, missing = {plan.concept.name: plan for plan in plans}, resumable.missing_units(run, units)
    reusable, done = ReusableModel(options), len(weights) - len(missing)

    def visit(checkpoint: Checkpoint, folder: Path) -> None:
        nonlocal done
        check_model_configs(plans, folder)
        network, _ = reusable.load(folder)
        for name in missing[checkpoint]:
            began, place, unit = time.monotonic(), f"{checkpoint.stage} {checkpoint.name}", units[checkpoint, name]

            def report(activity: str, name: str = name, place: str = place) -> None:
                on_progress(TraceProgress(place, done, len(lineage.checkpoints), f"{name}: {activity}"))

            plan = by_concept[name]
            result = evaluate_concept(network, plan, say=report)
            rows = evaluation_rows(result, scorers=scorers, seed=plan.settings.seed)
            template = template_name(network.tokenizer, plan.concept.template)
            rows += template_rows(plan.concept, template, plan.settings.seed)
            run.keep(unit, CheckpointStamp.of(lineage.name, unit, checkpoint).on(rows))
            run.forget(_unit_prefix(checkpoint, plan, beside), but=unit)
            cost = {"passes": result.passes.total, **vars(result.passes)}
            entry = {"evaluated": name, "checkpoint": checkpoint.name, "stage": checkpoint.stage, **cost}
            run.log(entry | {"seconds": round(time.monotonic() - began, 2)})
        done += 1

    with resumable.job_session(run, units.values()):
        _write_run_json(run, lineage, plans, weights, options, beside, command)
        failures += resumable.visit_checkpoints(
            run, resumable.fetch_ahead(missing, options), visit, tolerant=len(lineage.checkpoints) > 1
        )
        resumable.check_any_done(run, units.values(), failures)
        write_verdicts(run, lineage.name)
    return run, failures


def check_model_configs(plans: Sequence[EvaluationPlan], folder: Path) -> int:
    """Check plans against the config.json of a model; returns its number of layers."""
    config = read_config(folder)
    shape = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads, "width": config.hidden_size}
    for plan in plans:
        check_model_shape(plan, **shape)
    return int(config.num_hidden_layers)


def _unit_prefix(checkpoint: Checkpoint, plan: EvaluationPlan, beside: Mapping[str, object]) -> str:
    """What the name of a unit begins with: a digest of the checkpoint's place and of everything that is evaluated."""
    place = [checkpoint.stage, checkpoint.step, checkpoint.name]
    return f"evaluation-{content_digest([place, plan.key, beside['dtype'], beside['scorers']])}-"


def _earlier_unit_key(
    checkpoint: Checkpoint, identity: resumable.WeightIdentity, plan: EvaluationPlan, beside: Mapping[str, object]
) -> str:
    """Name of a unit in runs of versions that did not compare config and tokenizer."""
    place = [checkpoint.stage, checkpoint.step, checkpoint.name]
    return f"evaluation-{content_digest([place, identity.fingerprint, plan.key, beside['dtype'], beside['scorers']])}"


def _write_run_json(
    run: Run,
    lineage: Lineage,
    plans: Sequence[EvaluationPlan],
    weights: Mapping[Checkpoint, resumable.WeightIdentity],
    options: ModelOptions,
    beside: Mapping[str, object],
    command: str | None,
) -> None:
    """Add the evaluations to run.json; a new one has no settings, so that a trace which follows can set them."""
    if run.exists():
        about = run.about
    else:
        sizes = {checkpoint: identity.bytes for checkpoint, identity in weights.items()}
        about = describe_run(lineage, sizes, (), settings={}, device=options.device, command=command)
        about["finished"] = True
    known = {entry["name"] for entry in about["concepts"]}
    new = [describe_concept(plan.concept) for plan in plans if plan.concept.name not in known]
    evaluations = {plan.concept.name: {**plan.describe(), **beside} for plan in plans}
    about[EVALUATIONS_FOLDER] = about.get(EVALUATIONS_FOLDER, {}) | evaluations
    run.describe(about | {"concepts": [*about["concepts"], *new]})
