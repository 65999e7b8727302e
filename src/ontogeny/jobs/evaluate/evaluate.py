"""Evaluate steering vectors over the checkpoints of a lineage into a run directory: one unit per checkpoint and concept.

The verdicts are computed last, from the rows, and corrected over everything that the run tried.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ontogeny.activations.activations import template_rows
from ontogeny.data.templates import template_name
from ontogeny.direction import Direction
from ontogeny.jobs import resumable
from ontogeny.jobs.evaluate.measure import evaluate_concept
from ontogeny.jobs.evaluate.plan import EvaluationPlan, EvaluationSettings, check_model_shape, plan_evaluation
from ontogeny.jobs.evaluate.rows import evaluation_rows
from ontogeny.jobs.evaluate.share_trends import write_share_trends
from ontogeny.jobs.evaluate.siblings import check_equal_networks
from ontogeny.jobs.evaluate.verdicts import write_verdicts
from ontogeny.jobs.inputs import as_concepts, as_lineage, output_folder
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.run_json import EVALUATIONS_FOLDER, describe_concept, describe_run
from ontogeny.lineage import Checkpoint, Lineage
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions, read_config
from ontogeny.models.reusable import ReusableModel
from ontogeny.steering.text_scorers import TextScorer
from ontogeny.storage.failures import EVALUATION_FAILURES
from ontogeny.storage.files import content_digest
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.jobs.inputs import ConceptSources, LineageSource


@shows_progress
def evaluate(
    source: "LineageSource",
    concepts: "ConceptSources | Sequence[EvaluationPlan]",
    out: str | Path | None = None,
    settings: EvaluationSettings | None = None,
    *,
    methods: Sequence[str | Direction] = ("caa",),
    neutral: Sequence[str] = (),
    model: ModelOptions | None = None,
    scorers: Sequence[TextScorer] = (),
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Write the rows of all concepts at all checkpoints, and the verdicts. Finished units are not computed again.

    Checkpoints that could not be evaluated are in `failures` of the run.

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        concepts: One or several: names of plug-ins, files, data frames, `Concept` objects; or plans of `plan_evaluation`, one per concept.
        out: Run directory, new or of any run of the same lineage; by default a temporary one.
        settings: How vectors are evaluated.
        methods: Names of steering methods, or directions.
        neutral: Texts without the concept, on which side effects are measured; by default the concept's own texts.
        scorers: Score the sampled continuations.
        model: How models are loaded.
        command: The command line, for run.json.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: `out` holds a run of another lineage or of other examples, or no checkpoint can be evaluated.
    """
    options = model or ModelOptions()
    lineage = as_lineage(source, allow_pickle=options.allow_pickle)
    plans = _plans(concepts, methods, settings or EvaluationSettings(), neutral)
    planned = [plan.concept for plan in plans]
    resumable.check_concepts(planned)
    run = resumable.open_run_directory(output_folder(out, "evaluate"), lineage, planned)
    repair_run(run)
    weights, failures = resumable.readable_checkpoints(
        lineage, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer
    )
    resumable.check_own_templates(planned, weights, options.tokenizer)
    check_equal_networks(lineage, options.tokenizer)
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
            began, place, unit = time.monotonic(), checkpoint.label, units[checkpoint, name]

            def report(activity: str, name: str = name, place: str = place) -> None:
                on_progress(TraceProgress(place, done, len(lineage.checkpoints), f"{name}: {activity}"))

            plan = by_concept[name]
            siblings = checkpoint.data_share is not None
            result = evaluate_concept(network, plan, say=report, has_siblings=siblings)
            rows = evaluation_rows(result, scorers=scorers, seed=plan.settings.seed, has_siblings=siblings)
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
        write_share_trends(run, lineage.name)
        run.describe(run.about | {EVALUATION_FAILURES: [asdict(failure) for failure in failures]})
    return run


def _plans(
    concepts: "ConceptSources | Sequence[EvaluationPlan]",
    methods: Sequence[str | Direction],
    settings: EvaluationSettings,
    neutral: Sequence[str],
) -> list[EvaluationPlan]:
    if isinstance(concepts, Sequence) and any(isinstance(one, EvaluationPlan) for one in concepts):
        return list(cast("Sequence[EvaluationPlan]", concepts))
    opened = as_concepts(cast("ConceptSources", concepts))
    return [plan_evaluation(concept, methods, settings, neutral=neutral) for concept in opened]


def check_model_configs(plans: Sequence[EvaluationPlan], folder: Path) -> int:
    """Check plans against the config.json of a model; returns its number of layers."""
    config = read_config(folder)
    shape = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads, "width": config.hidden_size}
    for plan in plans:
        check_model_shape(plan, **shape)
    return int(config.num_hidden_layers)


def _unit_prefix(checkpoint: Checkpoint, plan: EvaluationPlan, beside: Mapping[str, object]) -> str:
    """Beginning of the name of a unit: a digest of the checkpoint's place and of everything that is evaluated."""
    place: list[Any] = [checkpoint.stage, checkpoint.step, checkpoint.name]
    place += [] if checkpoint.data_share is None else [checkpoint.data_share]
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
