"""Attribute behaviours to the stages of a lineage from its checkpoints: the tiers that need no recorded path, resumable by behaviour.

Stages are those on the way to the final one, by their parents. A stage must start where its parent ended; an edge over which weights were
averaged, annealed or taken from elsewhere is not a stage effect, and its rows are absent with the reason. Every checkpoint is read once,
the final one twice, into one network.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.attribution.baselines import bm25_scores, order_scores
from ontogeny.attribution.behaviours import (
    ModelBehaviour,
    concept_direction,
    direction_behaviour,
    margin_behaviour,
    refusal_behaviour,
    split_behaviour,
    text_behaviour,
)
from ontogeny.attribution.checkpoint_tiers import (
    Values,
    Weights,
    activation_difference,
    check_same_shapes,
    parameters_of,
    weight_difference,
    weight_dot,
    weight_sum,
)
from ontogeny.attribution.loss_derivatives import math_attention
from ontogeny.attribution.plan import AttributionPlan, AttributionSettings, BehaviourRequest, plan_attribution
from ontogeny.attribution.rows import QUESTION, StageResults, attribution_rows
from ontogeny.attribution.stage_data import StageData, segment_effects
from ontogeny.data.plain_texts import PlainTexts
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.resumable import check_any_done, drop_replaced, job_session, open_run_directory
from ontogeny.jobs.run_json import describe_concept, describe_run, describe_texts
from ontogeny.lineage import Checkpoint, Lineage, fetch_checkpoint
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.sites import Site
from ontogeny.storage.run import Run


def attribute(
    lineage: Lineage,
    requests: Sequence[BehaviourRequest],
    out: str | Path,
    settings: AttributionSettings | None = None,
    *,
    model: ModelOptions | None = None,
    stage_texts: Mapping[str, Sequence[str]] | None = None,
    without: Mapping[str, Lineage] | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Attribute behaviours to stages and write their rows; finished behaviours are not computed again.

    Args:
        stage_texts: Texts that a stage was trained on, by name of the stage, for the estimates that need them.
        without: Runs that were trained without a stage's data, by name of the stage: the truth of *data replaced, steps kept*.

    Raises:
        BadInput: as `plan_attribution`, or a behaviour that the model or its concept cannot have.
    """
    options = model or ModelOptions()
    if options.torch_dtype is not torch.float32:
        raise BadInput(
            f"an attribution takes gradients and needs float32, got {options.dtype}: leave `dtype` as it is."
        )
    plan = plan_attribution(
        lineage, requests, settings, allow_pickle=options.allow_pickle, stage_texts=stage_texts, without=without
    )
    concepts = [request.concept for request in plan.requests]
    run = open_run_directory(out, lineage, concepts)
    with job_session(run, plan.units.values()):
        sizes = {checkpoint: size for checkpoint, (size, _) in plan.checkpoints.items()}
        described = {c.name: describe_texts(c) if isinstance(c, PlainTexts) else describe_concept(c) for c in concepts}
        about = describe_run(
            lineage,
            sizes,
            described.values(),
            settings={"samples": plan.settings.samples, "seed": plan.settings.seed},
            device=options.device,
            command=command,
            before=run.about if run.about_path.is_file() else None,
        )
        about["attribution"] = _describe(plan)
        run.describe(about)
        todo = [request for request in plan.requests if not run.done(plan.units[request.name])]
        if todo:
            for name, result in _measure(plan, options, todo, on_progress).items():
                unit = plan.units[name]
                run.keep(unit, [replace(row, unit=unit) for row in attribution_rows(plan, result)])
        check_any_done(run, plan.units.values(), [])
        effects = "metric in ('stage_effect', 'stage_score')"
        drop_replaced(run, plan.units.values(), coords=("behaviour",), where=effects, seeds=False)
        run.describe(about | {"finished": True})
    return run


def _describe(plan: AttributionPlan) -> dict[str, object]:
    """The plan in run.json."""
    return {
        "behaviours": [request.name for request in plan.requests],
        "path": [stage.name for stage in plan.path],
        "off_path": list(plan.off_path),
        "question": QUESTION,
        "stage_texts": {name: len(texts) for name, texts in plan.stage_texts.items()},
        "without": {name: twin.label for name, twin in plan.without.items()},
        "cost": {
            request.name: {
                cost.tier: {"tokens": cost.passes, "share": cost.share if cost.retraining > 0 else None}
                for cost in plan.costs(request)
            }
            for request in plan.requests
        },
    }


@dataclass
class _Measurement:
    """Tensors in memory: one network, the final weights, and one gradient per behaviour."""

    plan: AttributionPlan
    options: ModelOptions
    reusable: ReusableModel
    model: Model
    behaviours: Mapping[str, ModelBehaviour]
    values: dict[Checkpoint, dict[str, Values]] = field(default_factory=dict)
    tokens: list[list[int]] = field(default_factory=list)
    """Ids of some texts, which every checkpoint's tokenizer must give."""

    def read(self, checkpoint: Checkpoint) -> None:
        """Fill the network with a checkpoint's weights.

        Raises:
            BadInput: its tensors have other shapes, or its tokenizer other tokens.
        """
        shapes = {name: p.shape for name, p in self.model.network.named_parameters()}
        folder = fetch_checkpoint(checkpoint, allow_pickle=self.options.allow_pickle)
        self.model, _ = self.reusable.load(folder)
        if {name: p.shape for name, p in self.model.network.named_parameters()} != shapes:
            raise BadInput(
                f"the checkpoints of all stages must have the same tensors, got others in {checkpoint.label}: compare stages of one "
                "architecture."
            )
        if self._ids() != self.tokens:
            raise BadInput(
                f"the checkpoints of all stages must have the same tokens, got others from the tokenizer of {checkpoint.label}: set "
                "`tokenizer` to one for all."
            )

    def remember_tokens(self) -> None:
        self.tokens = self._ids()

    def _ids(self) -> list[list[int]]:
        texts = [example.text for request in self.plan.requests for example in request.concept.examples[:4]]
        return [list(self.model.tokenizer(text)["input_ids"]) for text in texts]

    def evaluate(self) -> dict[str, Values]:
        """Every behaviour at the weights in the network."""
        network = self.model.network
        return {name: np.asarray(b.values(network).numpy(), dtype=np.float64) for name, b in self.behaviours.items()}

    @torch.no_grad()
    def set(self, weights: Weights) -> None:
        for name, parameter in self.model.network.named_parameters():
            parameter.copy_(weights[name])

    def at(self, weights: Weights) -> dict[str, Values]:
        self.set(weights)
        return self.evaluate()


def _measure(
    plan: AttributionPlan, options: ModelOptions, todo: Sequence[BehaviourRequest], on_progress: ProgressCallback
) -> dict[str, StageResults]:
    """Scores of all stages for the behaviours; weights are read in the order of training, after the final ones."""
    reusable = ReusableModel(options)
    end = plan.path[-1].checkpoints[-1]
    model, _ = reusable.load(fetch_checkpoint(end, allow_pickle=options.allow_pickle))
    behaviours = {request.name: make_behaviour(request, model) for request in todo}
    here = _Measurement(plan, options, reusable, model, behaviours)
    here.remember_tokens()
    results = {name: StageResults(behaviour) for name, behaviour in behaviours.items()}
    data = {name: StageData.of(model, name, texts) for name, texts in plan.stage_texts.items()}
    final = parameters_of(model.network)
    here.values[end] = here.evaluate()
    slopes = {}
    for name, behaviour in behaviours.items():
        with math_attention():
            slopes[name] = behaviour.gradient(model.network)
    directions = {request.name: _direction(request, model) for request in todo}
    for stage_name, own in data.items():
        gradient = own.gradient(model)
        for name, result in results.items():
            result.scores["gradient_dot"][stage_name] = np.array([-weight_dot(slopes[name], gradient)])
    total = len(plan.checkpoints)
    states: dict[tuple[str, Checkpoint], dict[int, Float[Tensor, "example d"]]] = {}
    initial: Weights = {}
    before: Weights = {}
    deltas: dict[str, Weights] = {}
    ends: dict[str, Weights] = {}
    layers = {name: site for name, (site, _) in directions.items()}
    for index, stage in enumerate(plan.path):
        chain = plan.chain(index)
        for checkpoint in chain:
            wanted = [name for name in data if checkpoint in _ends(plan, name) and (name, checkpoint) not in states]
            if checkpoint not in here.values or checkpoint == chain[-1] or not initial or wanted:
                here.read(checkpoint)
                if checkpoint not in here.values:
                    here.values[checkpoint] = here.evaluate()
                initial = initial or parameters_of(here.model.network)
                before = before or initial
            for name in wanted:
                states[name, checkpoint] = data[name].states(here.model, set(layers.values()))
            on_progress(TraceProgress(checkpoint.name, min(len(here.values), total), total, "measuring behaviours"))
        after = parameters_of(here.model.network)  # the end of the chain was read last
        check_same_shapes(before, after)
        delta = weight_difference(after, before)
        if stage.name in data:
            deltas[stage.name], ends[stage.name] = delta, after
        removed = here.at(weight_sum(final, delta, -1.0))
        added = here.at(weight_sum(initial, delta, 1.0))
        for name, result in results.items():
            _score(result, plan, index, here.values, removed[name], added[name], weight_dot(slopes[name], delta))
        before = after
    for name, result in results.items():
        request = next(r for r in todo if r.name == name)
        _score_by_data(result, plan, request, states, directions[name])
        segment_effects(result, plan, data, deltas, ends, slopes[name], here.model, options.allow_pickle)
    for stage_name, twin in plan.without.items():
        here.read(twin)
        for name, values in here.evaluate().items():
            results[name].scores["retraining"][stage_name] = here.values[end][name] - values
    return results


def _score(
    result: StageResults,
    plan: AttributionPlan,
    index: int,
    values: Mapping[Checkpoint, Mapping[str, Values]],
    removed: Values,
    added: Values,
    linearised: float,
) -> None:
    """The tiers that need checkpoints only."""
    name, stage = result.behaviour.name, plan.path[index].name
    chain = plan.chain(index)
    path = [values[checkpoint][name] for checkpoint in chain]
    moves = [b - a for a, b in itertools.pairwise(path)]
    first, last = values[plan.chain(0)[0]][name], values[plan.path[-1].checkpoints[-1]][name]
    result.inside[stage] = list(zip(chain, path, strict=True))
    result.scores["telescoping"][stage] = np.sum(moves, axis=0) if moves else np.zeros_like(first)
    result.scores["endpoint"][stage] = path[-1] - path[0]
    result.scores["subtraction"][stage] = last - removed
    result.scores["addition"][stage] = added - first
    result.scores["linearised"][stage] = np.array([linearised])
    result.scores["order"][stage] = np.array([order_scores(len(plan.path))[index]])


def _score_by_data(
    result: StageResults,
    plan: AttributionPlan,
    request: BehaviourRequest,
    states: Mapping[tuple[str, Checkpoint], Mapping[int, Float[Tensor, "example d"]]],
    direction: tuple[int, Float[Tensor, " d"] | None],
) -> None:
    """BM25 of the stages' texts, and the change of activations on them along the concept's direction."""
    texts = list(plan.stage_texts.values())
    queries = [example.text for example in request.concept.examples][:200]
    for stage, score in zip(plan.stage_texts, bm25_scores(texts, queries) if texts else (), strict=True):
        result.scores["bm25"][stage] = np.array([score])
        layer, along = direction
        if along is None:
            result.reasons["activation_difference"][stage] = "the concept has no two classes, so it has no direction"
            continue
        start, end = _ends(plan, stage)
        cosine = activation_difference(states[stage, start][layer], states[stage, end][layer], along.cpu())
        result.scores["activation_difference"][stage] = np.array([cosine])


def _ends(plan: AttributionPlan, stage: str) -> tuple[Checkpoint, Checkpoint]:
    """The checkpoints at the start and the end of a stage."""
    chain = plan.chain([own.name for own in plan.path].index(stage))
    return chain[0], chain[-1]


def _direction(request: BehaviourRequest, model: Model) -> tuple[int, Float[Tensor, " d"] | None]:
    """Layer and direction of the behaviour's concept at the final weights; None without two classes."""
    _, source = split_behaviour(request.name)
    site = _site(source, model)
    if isinstance(request.concept, PlainTexts) or request.concept.kind != "binary":
        return site.layer or 0, None
    return site.layer or 0, concept_direction(model, request.concept, site)[0]


def make_behaviour(request: BehaviourRequest, model: Model) -> ModelBehaviour:
    """The behaviour of a request, for a model.

    Raises:
        BadInput: the concept lacks the questions or labels that the behaviour needs.
    """
    kind, source = split_behaviour(request.name)
    concept = request.concept
    texts, groups = [e.text for e in concept.examples], [e.group for e in concept.examples]
    if kind in ("loss", "entropy"):
        return text_behaviour(request.name, model, texts, groups, entropy=kind == "entropy")
    if isinstance(concept, PlainTexts):
        raise BadInput(
            f"`behaviour` {request.name} needs labels, but {concept.name} has none: use loss:{concept.name}."
        )
    makers: dict[str, Callable[[], ModelBehaviour]] = {
        "margin": lambda: margin_behaviour(request.name, model, concept),
        "refusal": lambda: refusal_behaviour(request.name, model, concept),
        "direction": lambda: direction_behaviour(request.name, model, concept, _site(source, model)),
    }
    return makers[kind]()


def _site(source: str, model: Model) -> Site:
    """The site after @, or the middle of the network."""
    _, at, site = source.rpartition("@")
    return Site.parse(site) if at else Site("resid", (model.layers + 1) // 2)
