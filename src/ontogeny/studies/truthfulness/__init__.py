"""Study: truth directions, probes and steering, stage × stage (arXiv:2310.06824, 2504.02904).

Each stage has Marks and Tegmark's mass-mean direction δ = mean of the true − mean of the false statements at their last token. The rows
compare the directions, test each stage's probe on each stage, and steer each stage along each δ, with intervals over groups of statements.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.statement_folds import LayerActivations, StatementFold, statement_folds
from ontogeny.data.verdict_question import VerdictQuestion, verdict_question_for
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.measurements.scores import held_out_scores
from ontogeny.metrics.separability import auroc
from ontogeny.metrics.similarity import cosine
from ontogeny.models.model import Model
from ontogeny.probes.mass_mean import fit
from ontogeny.records import Record, StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.control_tasks import random_directions
from ontogeny.statistics.denoised_cosine import denoised_cosine
from ontogeny.statistics.nulls import null_interval
from ontogeny.statistics.splits import group_folds
from ontogeny.steering.push_effects import push_effect_rows
from ontogeny.steering.verdicts import run_verdict_prompts

TITLE = "Truthfulness"
INPUTS = ("statements", "question")
UNIT = "truth"
"""The study's name when the first runs were made."""
_MAX_LAYERS = 12
"""Blocks that are tried: all but the last, or this many of them, evenly spaced."""
_MAX_PROJECTED_STATEMENTS = 200
_RANDOM_DIRECTIONS = 200


@dataclass(frozen=True)
class TruthfulnessSettings:
    layer: int | None = None
    """Block after which directions are learned; None: where probes read the learned statements best, mean over stages."""
    question: VerdictQuestion | None = None
    """None: `verdict_question_for` the tokenizer."""
    nulls: int = 192
    """Maximum random directions per vector; fewer if these settle it."""
    resamples: int = 1000
    seed: int = 0


def settings(inputs: StudyInputs) -> TruthfulnessSettings:
    """Default settings with the comparison's question and seed."""
    return TruthfulnessSettings(question=inputs.question, seed=inputs.seed)


def cost(inputs: StudyInputs, sizes: StageSizes) -> float:
    """Estimated tokens that pass through the models."""
    texts, stages = [e.text for c in inputs.statements for e in c.examples], sizes.stages
    # Two tokens and a short question of the held-out third, along and against, for each vector and about 70 random ones.
    many = stages**2 if stages <= 4 else 2 * stages
    return stages * text_tokens(texts) + (stages**2 * 4 + many * 140) * len(texts) * 0.3 * 6


def run(stages: Mapping[str, Model], inputs: StudyInputs, settings: TruthfulnessSettings) -> Iterator[Record]:
    """Rows of all tables; stages of different width or depth are not compared, and their rows say so.

    Raises:
        BadInput: statements of one class, too few of them, or verdicts that the tokenizer cannot tell apart.
    """
    question = settings.question or verdict_question_for(next(iter(stages.values())).tokenizer)
    shots = question.shots if question else 0
    folds = list(statement_folds(inputs.statements, shots=shots, resamples=settings.resamples, seed=settings.seed))
    activations, shapes = {}, {}
    for name, model in stages.items():
        shapes[name] = (model.d, model.layers)
        activations[name] = [_read(model, concept, _layers(model, settings)) for concept in inputs.statements]
    for fold in folds:
        # Stages of one shape are compared with each other, at one layer.
        for shape in dict.fromkeys(shapes.values()):
            names = [name for name in stages if shapes[name] == shape]
            layers = _layers(stages[names[0]], settings)
            at = _best_layer_index(fold, [activations[name] for name in names], settings)
            site, own = Site("resid", layers[at]), {n: [x[at] for x in activations[n]] for n in names}
            group = _StageGroup(fold, names, site, own, settings)
            yield from _cosine_rows(group)
            yield from _transfer_rows(group)
            yield from _projection_rows(group)
            yield from _push_effect_rows(stages, group, question, shots)
        yield from _incompatible_rows(fold, shapes, settings)


def _table(fold: StatementFold, settings: TruthfulnessSettings, site: Site | None = None) -> StageRowBuilder:
    return StageRowBuilder(fold.concept.name, str(fold.concept.position), "mass_mean", settings.seed, site=site)


@dataclass(frozen=True, eq=False)
class _StageGroup:
    """Stages of one shape, at one layer."""

    fold: StatementFold
    names: list[str]
    site: Site
    activations: Mapping[str, LayerActivations]
    settings: TruthfulnessSettings

    @property
    def table(self) -> StageRowBuilder:
        return _table(self.fold, self.settings, self.site)

    @cached_property
    def learned(self) -> dict[str, Float[Tensor, "example d"]]:
        return {name: self.fold.learn([x[None] for x in self.activations[name]])[0] for name in self.names}

    @cached_property
    def tested(self) -> dict[str, Float[Tensor, "row d"]]:
        return {name: self.fold.test([x[None] for x in self.activations[name]])[0] for name in self.names}

    @cached_property
    def directions(self) -> dict[str, Float[Tensor, " d"]]:
        """δ of each stage, with the distance of the means as its norm."""
        return {name: _mass_mean_difference(self.learned[name], self.fold.y) for name in self.names}


def _layers(model: Model, settings: TruthfulnessSettings) -> list[int]:
    if settings.layer is not None:
        if not 1 <= settings.layer <= model.layers:
            raise BadInput(
                f"`layer` must be a block from 1 to {model.layers}, got block {settings.layer}: choose another."
            )
        return [settings.layer]
    # After the last block nothing is left to compute with a direction.
    last = max(1, model.layers - 1)
    count = min(last, _MAX_LAYERS)
    return sorted({round(1 + i * (last - 1) / max(1, count - 1)) for i in range(count)})


def _read(model: Model, concept: Concept, layers: Sequence[int]) -> Float[Tensor, "site example d"]:
    bare = replace(concept, answers=())
    work, rows = build_workload([bare], model.tokenizer, model.context)
    captured = capture_workload(model, work, [Site("resid", layer) for layer in layers])
    return captured.parts["resid"][:, rows[bare.name].reads].float().cpu()


def _mass_mean_difference(x: Float[Tensor, "example d"], y: Bool[Tensor, " example"]) -> Float[Tensor, " d"]:
    return x[y].mean(0) - x[~y].mean(0)


def _best_layer_index(
    fold: StatementFold, activations: Sequence[LayerActivations], settings: TruthfulnessSettings
) -> int:
    """Index of the layer whose probe reads held-out groups of the learned statements best, mean over stages."""
    if activations[0][0].shape[0] == 1:
        return 0
    parts = group_folds(fold.groups, fold.y, "binary", k=3, seed=settings.seed)
    total = torch.zeros(activations[0][0].shape[0])
    for stage in activations:
        x = fold.learn(stage)
        for part in parts.unique():
            out = parts == part
            probe = fit(x[:, ~out], fold.y[~out], groups=fold.groups[~out])
            total += auroc(probe.scores(x[:, out])[..., 0], fold.y[out]).nan_to_num(0.5)
    return int(total.argmax())


def _cosine_rows(group: _StageGroup) -> Iterator[Record]:
    """Denoised cosines of the directions, with the plain cosine in the coords."""
    fold, table, point = group.fold, replace(group.table, split=None), group.directions
    drawn = {name: _resampled_directions(group.learned[name], fold) for name in group.names}
    floor = random_directions(len(next(iter(point.values()))), count=2 * _RANDOM_DIRECTIONS, seed=group.settings.seed)
    chance = float(cosine(floor[:_RANDOM_DIRECTIONS], floor[_RANDOM_DIRECTIONS:]).abs().quantile(0.95))
    n, groups = len(fold.y), len(fold.groups.unique())
    for a in group.names:
        yield table.row("class_gap", float(point[a].norm()), a, n=n)
        for b in group.names:
            value, ends = denoised_cosine(point[a], point[b], drawn[a], drawn[b], groups=groups)
            coords = {"chance": f"{chance:.3f}", "plain": f"{float(cosine(point[a], point[b])):.4f}"}
            reason = f"the direction of {a} or of {b} is no longer than its noise"
            yield table.row("stage_cosine", value, a, b, ends=ends, n=n, reason=reason, **coords)
        halves = _split_half_cosine(group.learned[a], fold, group.settings.seed)
        note = "mean cosine of the directions from two halves of the groups, stepped up to all (Spearman–Brown)"
        yield table.row("stage_cosine", halves, a, a, n=n, control="split_half", note=note)


def _resampled_directions(x: Float[Tensor, "example d"], fold: StatementFold) -> Float[Tensor, "sample d"]:
    true, false = (fold.weights_learned * mask for mask in (fold.y, ~fold.y))
    return true @ x / true.sum(1, keepdim=True) - false @ x / false.sum(1, keepdim=True)


def _split_half_cosine(x: Float[Tensor, "example d"], fold: StatementFold, seed: int, times: int = 20) -> float:
    """Cosine of the directions from two halves of the groups, the upper bound that noise allows."""
    cosines = []
    for i in range(times):
        half = group_folds(fold.groups, fold.y, "binary", k=2, seed=seed + i) == 0
        a, b = (_mass_mean_difference(x[rows], fold.y[rows]) for rows in (half, ~half))
        cosines.append(cosine(a, b))
    mean = float(torch.stack(cosines).mean())
    return 2 * mean / (1 + mean) if mean > 0 else mean


def _transfer_rows(group: _StageGroup) -> Iterator[Record]:
    """Each stage's probe on each stage's activations, centred per stage; the threshold is midway between the class means."""
    fold, y = group.fold, group.fold.y_tested
    for target in group.names:
        x = group.tested[target]
        for source in group.names:
            unit = group.directions[source] / group.directions[source].norm()
            own = group.learned[source] @ unit
            middle = (own[fold.y].mean() + own[~fold.y].mean()) / 2
            scores = (x @ unit - middle)[None, :, None]
            for metric in ("auroc", "accuracy"):
                scored = held_out_scores(metric, scores, y, fold.weights, fold.groups_tested)
                value, ends = float(scored.value), scored.interval.ends
                yield group.table.row(f"stage_{metric}", value, target, source, ends=ends, n=len(y))
        yield _random_probe_row(group, target, x)


def _random_probe_row(group: _StageGroup, target: str, x: Float[Tensor, "row d"]) -> Record:
    """AUROC of random directions, each with the sign that fits the learned statements."""
    directions = random_directions(x.shape[1], count=_RANDOM_DIRECTIONS, seed=group.settings.seed)
    signed = directions * (directions @ group.directions[target]).sign()[:, None]
    scores = auroc((x @ signed.T).T, group.fold.y_tested)
    return group.table.row(
        "stage_auroc",
        float(scores.mean()),
        target,
        ends=null_interval(scores),
        n=len(x),
        control="random_direction",
        note=f"{_RANDOM_DIRECTIONS} directions; low and high hold 95 % of them",
    )


def _projection_rows(group: _StageGroup) -> Iterator[Record]:
    """Statements projected on the stage's own direction, and on the first principal axis of the rest."""
    shown, y = group.fold.statements[:_MAX_PROJECTED_STATEMENTS], group.fold.y_tested
    for name in group.names:
        x, unit = group.tested[name][:_MAX_PROJECTED_STATEMENTS], group.directions[name]
        unit = unit / unit.norm()
        along = x @ unit
        rest = x - along[:, None] * unit
        beside = rest @ torch.linalg.svd(rest - rest.mean(0), full_matrices=False).Vh[0]
        for axis, values in (("direction", along), ("beside", beside)):
            for i, value in enumerate(values.tolist()):
                coords: dict[str, Any] = {"axis": axis, "example": i, "label": bool(y[i]), "text": shown[i].text[:80]}
                yield group.table.row("stage_projection", value, name, n=1, **coords)


def _push_effect_rows(
    stages: Mapping[str, Model], group: _StageGroup, question: VerdictQuestion | None, shots: int
) -> Iterator[Record]:
    """Effect of steering each stage along each stage's δ on its verdicts."""
    fold, table = group.fold, group.table
    first = max(1, round(stages[group.names[0]].layers / 4))
    layers = range(min(first, group.site.layer), group.site.layer + 1)
    for target in group.names:
        if question is None:
            reason = "the tokenizer knows neither TRUE and FALSE nor right and wrong: name two verdicts"
            yield table.row("nie", float("nan"), target, n=0, reason=reason)
            continue
        prompts = run_verdict_prompts(stages[target], question, fold.shots[:shots], [e.text for e in fold.statements])
        nulls, seed = group.settings.nulls, group.settings.seed
        yield from push_effect_rows(table, layers, target, prompts, group.directions, fold, nulls=nulls, seed=seed)


def _incompatible_rows(
    fold: StatementFold, shapes: Mapping[str, tuple[int, int]], settings: TruthfulnessSettings
) -> Iterator[Record]:
    """NaN rows of stages of different shapes."""
    table = _table(fold, settings)
    for a, (width, depth) in shapes.items():
        for b, other in shapes.items():
            if other != (width, depth):
                what = f"{width} dimensions and {other[0]}" if width != other[0] else f"{depth} blocks and {other[1]}"
                reason = f"{a} and {b} differ: {what}, so no direction fits both"
                for metric in ("stage_cosine", "stage_auroc", "stage_accuracy", "nie"):
                    yield table.row(metric, float("nan"), a, b, n=0, reason=reason)
