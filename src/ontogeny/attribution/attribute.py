"""Attribute behaviours to the stages of a lineage from its checkpoints: the tiers that need no recorded path, resumable by behaviour.

Stages are those on the way to the final one, by their parents. A stage must start where its parent ended; an edge over which weights were
averaged, annealed or taken from elsewhere is no stage effect, and its rows are absent with the reason.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ontogeny.attribution.behaviours import (
    ModelBehaviour,
    direction_behaviour,
    margin_behaviour,
    refusal_behaviour,
    split_behaviour,
    text_behaviour,
)
from ontogeny.attribution.checkpoint_tiers import (
    CHECKPOINT_TIERS,
    Values,
    Weights,
    checkpoint_scores,
    parameters_of,
)
from ontogeny.attribution.loss_derivatives import math_attention
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.resumable import check_any_done, job_session, open_run_directory, weight_identity
from ontogeny.jobs.run_json import describe_concept, describe_run
from ontogeny.lineage import Checkpoint, Lineage, Stage, fetch_checkpoint
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, open_model
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights, mean_samples, percentile_interval
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

QUESTION = "updates skipped"
"""The counterfactual that the tiers estimate."""
_VERSION = 1


@dataclass(frozen=True)
class AttributionSettings:
    samples: int = 1000
    """Bootstrap resamples of the examples."""
    seed: int = 0


@dataclass(frozen=True)
class BehaviourRequest:
    """A behaviour as it was asked for, with its texts."""

    name: str
    """`KIND:SOURCE`."""
    concept: Concept


@dataclass(frozen=True)
class AttributionPlan:
    """The stages on the path, their checkpoints, and one unit per behaviour."""

    lineage: Lineage
    path: tuple[Stage, ...]
    off_path: tuple[str, ...]
    """Stages that do not lead to the final one."""
    requests: tuple[BehaviourRequest, ...]
    settings: AttributionSettings
    units: dict[str, str]
    """By name of the behaviour."""
    checkpoints: dict[Checkpoint, tuple[int, str]]
    """Size and fingerprint of the weights."""

    @property
    def loads(self) -> int:
        """Weights read: every checkpoint for telescoping, and the ends of stages for the others."""
        return len(self.checkpoints) + 3 * len(self.path)

    @property
    def evaluations(self) -> int:
        """Evaluations of each behaviour."""
        return len(self.checkpoints) + 3 * len(self.path) + 3


def plan_attribution(
    lineage: Lineage,
    requests: Sequence[BehaviourRequest],
    settings: AttributionSettings | None = None,
    *,
    allow_pickle: bool = False,
) -> AttributionPlan:
    """Plan an attribution; reads metadata only.

    Raises:
        BadInput: no behaviours, a lineage with a single checkpoint, or checkpoints that cannot be read.
    """
    if not requests:
        raise BadInput("`behaviours` must name at least one behaviour, got none: add one such as loss:truth.")
    settings = settings or AttributionSettings()
    path = stages_on_path(lineage)
    checkpoints = {}
    for stage in path:
        for checkpoint in stage.checkpoints:
            identity = weight_identity(checkpoint, allow_pickle=allow_pickle)
            checkpoints[checkpoint] = identity.bytes, identity.fingerprint
    if len(checkpoints) < 2:
        raise BadInput(
            f"an attribution needs at least two checkpoints, got {len(checkpoints)}: name a lineage of stages."
        )
    prints = [fingerprint for _, fingerprint in checkpoints.values()]
    units = {
        request.name: content_digest(
            ["attribution", _VERSION, request.name, request.concept.hash, prints, settings.samples, settings.seed]
        )
        for request in requests
    }
    off = tuple(stage.name for stage in lineage.stages if stage not in path)
    return AttributionPlan(lineage, path, off, tuple(requests), settings, units, checkpoints)


def stages_on_path(lineage: Lineage) -> tuple[Stage, ...]:
    """The stages that lead to the last one, in order, by their parents."""
    by_name = {stage.name: stage for stage in lineage.stages}
    path = [lineage.stages[-1]]
    while (parent := path[0].parent) is not None and parent in by_name and by_name[parent] not in path:
        path.insert(0, by_name[parent])
    return tuple(path)


def attribute(
    lineage: Lineage,
    requests: Sequence[BehaviourRequest],
    out: str | Path,
    settings: AttributionSettings | None = None,
    *,
    model: ModelOptions | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Attribute behaviours to stages and write their rows; finished behaviours are not computed again.

    Raises:
        BadInput: as `plan_attribution`, or a behaviour that the model or its concept cannot have.
    """
    options = model or ModelOptions()
    if options.torch_dtype is not torch.float32:
        raise BadInput(
            f"an attribution takes gradients and needs float32, got {options.dtype}: leave `dtype` as it is."
        )
    plan = plan_attribution(lineage, requests, settings, allow_pickle=options.allow_pickle)
    concepts = [request.concept for request in plan.requests]
    run = open_run_directory(out, lineage, concepts)
    with job_session(run, plan.units.values()):
        sizes = {checkpoint: size for checkpoint, (size, _) in plan.checkpoints.items()}
        described = {c.name: describe_concept(c) for c in concepts}
        about = describe_run(
            lineage,
            sizes,
            described.values(),
            settings={"samples": plan.settings.samples, "seed": plan.settings.seed},
            device=options.device,
            command=command,
            before=run.about if run.about_path.is_file() else None,
        )
        about["attribution"] = {
            "behaviours": [request.name for request in plan.requests],
            "path": [stage.name for stage in plan.path],
            "off_path": list(plan.off_path),
            "question": QUESTION,
        }
        run.describe(about)
        todo = [request for request in plan.requests if not run.done(plan.units[request.name])]
        if todo:
            _measure(plan, run, options, todo, on_progress)
        check_any_done(run, plan.units.values(), [])
        run.describe(about | {"finished": True})
    return run


def _measure(
    plan: AttributionPlan,
    run: Run,
    options: ModelOptions,
    todo: Sequence[BehaviourRequest],
    on_progress: ProgressCallback,
) -> None:
    final = plan.path[-1].checkpoints[-1]
    network = open_model(final, options)
    behaviours = {request.name: make_behaviour(request, network) for request in todo}
    ends = _StageEnds(plan, options)
    breaks = [_break(plan, index) for index in range(len(plan.path))]
    total = len(plan.checkpoints)
    inside: dict[str, list[list[Values]]] = {name: [] for name in behaviours}
    done = 0
    for stage in plan.path:
        chain = _chain(plan, stage)
        for values in inside.values():
            values.append([])
        for checkpoint in chain:
            _load(network, _weights(checkpoint, options))
            for name, behaviour in behaviours.items():
                inside[name][-1].append(behaviour.values(network.network).numpy())
            done += checkpoint in stage.checkpoints
            on_progress(TraceProgress(checkpoint.name, min(done, total), total, "measuring behaviours"))
    for name, behaviour in behaviours.items():
        on_progress(TraceProgress(name, total, total, "comparing stages"))

        def value(weights: Weights, behaviour: ModelBehaviour = behaviour) -> Values:
            _load(network, weights)
            return np.asarray(behaviour.values(network.network).numpy(), dtype=np.float64)

        def gradient(weights: Weights, behaviour: ModelBehaviour = behaviour) -> Weights:
            _load(network, weights)
            with math_attention():
                return behaviour.gradient(network.network)

        scores = checkpoint_scores(ends, value, gradient, inside=inside[name])
        rows = attribution_rows(plan, behaviour, scores, inside[name], breaks)
        unit = plan.units[name]
        run.keep(unit, [replace(row, unit=unit) for row in rows])


def attribution_rows(
    plan: AttributionPlan,
    behaviour: ModelBehaviour,
    scores: dict[str, list[Values]],
    inside: Sequence[Sequence[Values]],
    breaks: Sequence[str],
) -> Iterator[Record]:
    """Rows of a behaviour: its value at every checkpoint of the path, and the effect of each stage by each tier."""
    settings = plan.settings
    names = {group: i for i, group in enumerate(dict.fromkeys(behaviour.groups))}
    groups = torch.tensor([names[group] for group in behaviour.groups])
    weights = group_weights(groups, samples=settings.samples, seed=settings.seed)
    kind, _ = split_behaviour(behaviour.name)
    concept = next(request.concept.name for request in plan.requests if request.name == behaviour.name)

    def row(metric: str, values: Values, stage: str, step: int | None, **extra: object) -> Record:
        value, interval = float(values.mean()), (float("nan"), float("nan"))
        if len(values) > 1:
            samples = mean_samples(torch.from_numpy(values)[None], weights)[:, 0]
            interval = percentile_interval(torch.tensor(value).to(samples), samples, groups=len(names)).ends
        coords = {"behaviour": behaviour.name, "unit": behaviour.unit, "question": QUESTION}
        return make_record(
            metric,
            value,
            n=len(behaviour.groups),
            interval=interval,
            lineage=plan.lineage.name,
            stage=stage,
            step=step,
            concept=concept,
            seed=settings.seed,
            coords=coords,
            **extra,  # type: ignore[arg-type]
        )

    for stage, path in zip(plan.path, inside, strict=True):
        for checkpoint, values in zip(_chain(plan, stage), path, strict=True):
            if checkpoint in stage.checkpoints:
                yield row("behaviour", values, stage.name, checkpoint.step, method=kind)
    for tier in CHECKPOINT_TIERS:
        for index, stage in enumerate(plan.path):
            values = scores[tier.name][index]
            if breaks[index]:
                yield replace(
                    row("stage_effect", values, stage.name, None, method=tier.name),
                    value=float("nan"),
                    low=float("nan"),
                    high=float("nan"),
                    n=0,
                    note=breaks[index],
                )
            else:
                yield row("stage_effect", values, stage.name, None, method=tier.name)


def make_behaviour(request: BehaviourRequest, model: Model) -> ModelBehaviour:
    """The behaviour of a request, for a model.

    Raises:
        BadInput: the concept lacks what the behaviour needs.
    """
    kind, source = split_behaviour(request.name)
    concept = request.concept
    texts, groups = [e.text for e in concept.examples], [e.group for e in concept.examples]
    makers: dict[str, Callable[[], ModelBehaviour]] = {
        "loss": lambda: text_behaviour(request.name, model, texts, groups, entropy=False),
        "entropy": lambda: text_behaviour(request.name, model, texts, groups, entropy=True),
        "margin": lambda: margin_behaviour(request.name, model, concept),
        "refusal": lambda: refusal_behaviour(request.name, model, concept),
        "direction": lambda: direction_behaviour(request.name, model, concept, _site(source, model)),
    }
    return makers[kind]()


def _site(source: str, model: Model) -> Site:
    """The site after @, or the middle of the network."""
    _, at, site = source.rpartition("@")
    return Site.parse(site) if at else Site("resid", (model.layers + 1) // 2)


def _chain(plan: AttributionPlan, stage: Stage) -> list[Checkpoint]:
    """The checkpoints from the start of a stage to its end; it starts at its parent's end, unless it has a step 0 of its own."""
    index = plan.path.index(stage)
    own = list(stage.checkpoints)
    return own if index == 0 or own[0].step == 0 else [plan.path[index - 1].checkpoints[-1], *own]


def _break(plan: AttributionPlan, index: int) -> str:
    """Why a stage does not start where its parent ended; empty if it does, or if no step 0 is there to tell."""
    stage = plan.path[index]
    first = stage.checkpoints[0]
    if index == 0 or first.step != 0:
        return ""
    parent = plan.path[index - 1].checkpoints[-1]
    if plan.checkpoints[first][1] == plan.checkpoints[parent][1]:
        return ""
    before = plan.path[index - 1].name
    return f"the stage does not start at the end of {before}: its step 0 has other weights, so a difference is no stage effect"


class _StageEnds(Sequence[Weights]):
    """Weights before the first stage and after each stage, read when they are asked for."""

    def __init__(self, plan: AttributionPlan, options: ModelOptions) -> None:
        self.checkpoints = [plan.path[0].checkpoints[0], *(stage.checkpoints[-1] for stage in plan.path)]
        self.options = options

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __getitem__(self, index: int) -> Weights:  # type: ignore[override]
        return _weights(self.checkpoints[index], self.options)


def _weights(checkpoint: Checkpoint, options: ModelOptions) -> Weights:
    folder = fetch_checkpoint(checkpoint, allow_pickle=options.allow_pickle)
    return parameters_of(open_model(folder, options).network)


@torch.no_grad()
def _load(model: Model, weights: Weights) -> None:
    for name, parameter in model.network.named_parameters():
        if name not in weights or weights[name].shape != parameter.shape:
            raise BadInput(f"the checkpoints of all stages must have the same tensors, got another {name}.")
        parameter.copy_(weights[name])
