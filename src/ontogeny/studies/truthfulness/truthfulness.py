"""Truthfulness from stage to stage: a direction each, their cosines, probes tried on each other, and what pushing along them does.

Marks & Tegmark's mass-mean direction (arXiv:2310.06824) compared as in arXiv:2504.02904: δ = mean of the true − mean of the false
statements at their last token. Everything is a table of stages × stages, with intervals by resampling groups of statements.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.activations.capture import capture
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import VerdictQuestion, verdict_question_for
from ontogeny.jobs.compare.rows import StageRowBuilder
from ontogeny.metrics.separability import auroc
from ontogeny.metrics.similarity import cosine
from ontogeny.models.model import Model
from ontogeny.probes.mass_mean import fit
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import auroc_samples, mean_samples, share_interval
from ontogeny.statistics.control_tasks import random_directions
from ontogeny.statistics.splits import group_folds
from ontogeny.studies.truthfulness.denoised_cosine import denoised_cosine
from ontogeny.studies.truthfulness.folds import LayerActivations, StatementFold, statement_folds
from ontogeny.studies.truthfulness.push_effects import push_effect_rows
from ontogeny.studies.truthfulness.verdicts import run_verdict_prompts

MAX_LAYERS_TRIED = 12
"""Blocks that are looked at: all but the last, or so many of them evenly spread."""
_MAX_PROJECTED_STATEMENTS = 200
"""Statements drawn in the projection, at most."""
_RANDOM_DIRECTIONS = 200


@dataclass(frozen=True)
class TruthfulnessSettings:
    layer: int | None = None
    """Block behind which directions are learned; None: where probes read best among the statements learned from, on average."""
    question: VerdictQuestion | None = None
    """None: the first known one whose verdicts the tokenizer can say."""
    nulls: int = 192
    """Random directions beside each pushed one, at most: fewer where fewer settle it."""
    resamples: int = 1000
    seed: int = 0


def run_truthfulness_study(
    models: Mapping[str, Model], concepts: Sequence[Concept], settings: TruthfulnessSettings | None = None
) -> Iterator[Record]:
    """Rows of all tables; cells of stages whose streams have other widths or depths are NaN and say so.

    Raises:
        BadInput: statements of one class, too few of them, or verdicts that the tokenizer cannot say.
    """
    settings = settings or TruthfulnessSettings()
    question = settings.question or verdict_question_for(next(iter(models.values())).tokenizer)
    shots = question.shots if question else 0
    every = list(statement_folds(concepts, shots=shots, resamples=settings.resamples, seed=settings.seed))
    seen, shapes = {}, {}
    for name, model in models.items():
        shapes[name] = (model.d, model.layers)
        seen[name] = [_read(model, concept, _layers(model, settings)) for concept in concepts]
    for fold in every:
        # Stages of one shape are compared with each other, at one layer; a stage of another shape stands for itself.
        for shape in dict.fromkeys(shapes.values()):
            names = [name for name in models if shapes[name] == shape]
            layers = _layers(models[names[0]], settings)
            at = _best_layer_index(fold, [seen[name] for name in names], settings)
            side = _StageGroup(
                fold, names, Site("resid", layers[at]), {n: [x[at] for x in seen[n]] for n in names}, settings
            )
            yield from _cosine_rows(side)
            yield from _transfer_rows(side)
            yield from _projection_rows(side)
            yield from _push_effect_rows(models, side, question, shots)
        yield from _incompatible_rows(fold, shapes, settings)


@dataclass(frozen=True, eq=False)
class _StageGroup:
    """Stages of one shape, at one layer."""

    fold: StatementFold
    names: list[str]
    site: Site
    seen: Mapping[str, LayerActivations]
    settings: TruthfulnessSettings

    @property
    def table(self) -> StageRowBuilder:
        return _table(self.fold, self.settings)

    def learned(self, name: str) -> Float[Tensor, "example d"]:
        return self.fold.learn([x[None] for x in self.seen[name]])[0]

    def tried(self, name: str) -> Float[Tensor, "row d"]:
        return self.fold.try_on([x[None] for x in self.seen[name]])[0]

    def directions(self) -> dict[str, Float[Tensor, " d"]]:
        """δ of each stage, as long as the distance of the means."""
        return {name: _mass_mean_difference(self.learned(name), self.fold.y) for name in self.names}


def _table(fold: StatementFold, settings: TruthfulnessSettings) -> StageRowBuilder:
    return StageRowBuilder(fold.concept.name, str(fold.concept.position), "mass_mean", settings.seed)


def _layers(model: Model, settings: TruthfulnessSettings) -> list[int]:
    if settings.layer is not None:
        if not 1 <= settings.layer <= model.layers:
            raise BadInput(
                f"there is no block {settings.layer}: the blocks are 1 to {model.layers}. Choose another layer."
            )
        return [settings.layer]
    # Behind the last block a direction is the answer's own words: nothing is left to compute with it.
    last = max(1, model.layers - 1)
    count = min(last, MAX_LAYERS_TRIED)
    return sorted({round(1 + i * (last - 1) / max(1, count - 1)) for i in range(count)})


def _read(model: Model, concept: Concept, layers: Sequence[int]) -> Float[Tensor, "site example d"]:
    bare = replace(concept, answers=())
    work, rows = build_workload([bare], model.tokenizer, model.context)
    found = capture(model, work, [Site("resid", layer) for layer in layers])
    return found.parts["resid"][:, rows[bare.name].reads].float().cpu()


def _mass_mean_difference(x: Float[Tensor, "example d"], y: Bool[Tensor, " example"]) -> Float[Tensor, " d"]:
    return x[y].mean(0) - x[~y].mean(0)


def _best_layer_index(fold: StatementFold, seen: Sequence[LayerActivations], settings: TruthfulnessSettings) -> int:
    """Place of the layer whose probe reads held-out groups of the learned statements best, on average over stages."""
    if seen[0][0].shape[0] == 1:
        return 0
    parts = group_folds(fold.groups, fold.y, "binary", k=3, seed=settings.seed)
    total = torch.zeros(seen[0][0].shape[0])
    for stage in seen:
        x = fold.learn(stage)
        for part in parts.unique():
            out = parts == part
            fitted = fit(x[:, ~out], fold.y[~out], groups=fold.groups[~out])
            total += auroc(fitted.scores(x[:, out])[..., 0], fold.y[out]).nan_to_num(0.5)
    return int(total.argmax())


def _cosine_rows(side: _StageGroup) -> Iterator[Record]:
    """Cosines of the directions behind their noise; `plain`: as they are, which is what papers tell."""
    fold, table = side.fold, replace(side.table, split=None)
    point = side.directions()
    drawn = {name: _resampled(side.learned(name), fold) for name in side.names}
    floor = random_directions(len(next(iter(point.values()))), count=2 * _RANDOM_DIRECTIONS, seed=side.settings.seed)
    chance = float(cosine(floor[:_RANDOM_DIRECTIONS], floor[_RANDOM_DIRECTIONS:]).abs().quantile(0.95))
    groups = len(fold.groups.unique())
    for a in side.names:
        yield table.row("class_gap", float(point[a].norm()), a, site=side.site, n=len(fold.y))
        for b in side.names:
            value, ends = denoised_cosine(point[a], point[b], drawn[a], drawn[b], groups=groups)
            coords = {"chance": f"{chance:.3f}", "plain": f"{float(cosine(point[a], point[b])):.4f}"}
            reason = f"the direction of {a} or of {b} is no longer than its noise"
            yield table.row(
                "stage_cosine", value, a, b, site=side.site, ends=ends, n=len(fold.y), coords=coords, reason=reason
            )
        halves = _split_half_cosine(side.learned(a), fold, side.settings.seed)
        note = "mean cosine of the directions from two halves of the groups, stepped up to all (Spearman–Brown)"
        yield table.row("stage_cosine", halves, a, a, site=side.site, n=len(fold.y), control="split_half", note=note)


def _resampled(x: Float[Tensor, "example d"], fold: StatementFold) -> Float[Tensor, "sample d"]:
    true, false = (fold.weights_learned * mask for mask in (fold.y, ~fold.y))
    return true @ x / true.sum(1, keepdim=True) - false @ x / false.sum(1, keepdim=True)


def _split_half_cosine(x: Float[Tensor, "example d"], fold: StatementFold, seed: int, times: int = 20) -> float:
    """What agreement the noise of the statements allows: two directions from different groups."""
    found = []
    for i in range(times):
        half = group_folds(fold.groups, fold.y, "binary", k=2, seed=seed + i) == 0
        found.append(
            cosine(_mass_mean_difference(x[half], fold.y[half]), _mass_mean_difference(x[~half], fold.y[~half]))
        )
    mean = float(torch.stack(found).mean())
    return 2 * mean / (1 + mean) if mean > 0 else mean


def _transfer_rows(side: _StageGroup) -> Iterator[Record]:
    """The probe of one stage on the activations of another, each centred by itself; classes are cut half-way between the means."""
    fold, table, y = side.fold, side.table, side.fold.y_tried
    point = side.directions()
    for target in side.names:
        x = side.tried(target)
        for source in side.names:
            unit = point[source] / point[source].norm()
            own = side.learned(source) @ unit
            middle = (own[fold.y].mean() + own[~fold.y].mean()) / 2
            scores = (x @ unit - middle)[None]
            right = ((scores > 0) == y).float()
            resampled = {
                "stage_auroc": (auroc(scores, y), auroc_samples(scores, y, fold.weights)),
                "stage_accuracy": (right.mean(1), mean_samples(right, fold.weights)),
            }
            for metric, (value, samples) in resampled.items():
                ends = share_interval(value, samples, groups=fold.groups_tried)
                yield table.row(
                    metric,
                    float(value),
                    target,
                    source,
                    site=side.site,
                    ends=(float(ends.low), float(ends.high)),
                    n=len(y),
                )
        yield _random_probe(side, target, x)


def _random_probe(side: _StageGroup, target: str, x: Float[Tensor, "row d"]) -> Record:
    """AUROC of random directions, each turned to the side of the true statements that were learned from."""
    directions = random_directions(x.shape[1], count=_RANDOM_DIRECTIONS, seed=side.settings.seed)
    turned = directions * (directions @ side.directions()[target]).sign()[:, None]
    found = auroc((x @ turned.T).T, side.fold.y_tried)
    low, high = found.quantile(torch.tensor([0.025, 0.975])).tolist()
    return side.table.row(
        "stage_auroc",
        float(found.mean()),
        target,
        site=side.site,
        ends=(low, high),
        n=len(x),
        control="random_direction",
        note=f"{_RANDOM_DIRECTIONS} directions; low and high hold 95 % of them",
    )


def _projection_rows(side: _StageGroup) -> Iterator[Record]:
    """Where statements lie: along the stage's own direction, and along the widest spread that is left beside it."""
    shown = side.fold.statements[:_MAX_PROJECTED_STATEMENTS]
    for name in side.names:
        x, unit = side.tried(name)[:_MAX_PROJECTED_STATEMENTS], side.directions()[name]
        unit = unit / unit.norm()
        along = x @ unit
        rest = x - along[:, None] * unit
        beside = rest @ torch.linalg.svd(rest - rest.mean(0), full_matrices=False).Vh[0]
        for axis, values in (("direction", along), ("beside", beside)):
            for i, value in enumerate(values.tolist()):
                coords = {"axis": axis, "example": str(i), "label": str(bool(side.fold.y_tried[i])).lower()}
                coords |= {"text": shown[i].text[:80]}
                yield side.table.row("stage_projection", value, name, site=side.site, n=1, coords=coords)


def _push_effect_rows(
    models: Mapping[str, Model], side: _StageGroup, question: VerdictQuestion | None, shots: int
) -> Iterator[Record]:
    """What pushing along each stage's δ does to the verdicts of each."""
    fold, vectors = side.fold, side.directions()
    first = max(1, round(models[side.names[0]].layers / 4))
    layers = range(min(first, side.site.layer), side.site.layer + 1)
    for target in side.names:
        if question is None:
            reason = "the tokenizer knows neither TRUE and FALSE nor right and wrong: name two verdicts"
            yield side.table.row("nie", float("nan"), target, site=side.site, n=0, reason=reason)
            continue
        asked = run_verdict_prompts(models[target], question, fold.shots[:shots], [e.text for e in fold.statements])
        yield from push_effect_rows(
            side.table,
            side.site,
            layers,
            target,
            asked,
            vectors,
            fold,
            nulls=side.settings.nulls,
            seed=side.settings.seed,
        )


def _incompatible_rows(
    fold: StatementFold, shapes: Mapping[str, tuple[int, int]], settings: TruthfulnessSettings
) -> Iterator[Record]:
    """Cells that cannot be."""
    table = _table(fold, settings)
    for a, (width, depth) in shapes.items():
        for b, other in shapes.items():
            if other != (width, depth):
                what = f"{width} dimensions and {other[0]}" if width != other[0] else f"{depth} blocks and {other[1]}"
                for metric in ("stage_cosine", "stage_auroc", "stage_accuracy", "nie"):
                    yield table.row(
                        metric, float("nan"), a, b, n=0, reason=f"{a} and {b} differ: {what}, so no direction fits both"
                    )
