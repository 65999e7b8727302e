"""Study: is refusal one direction, and does it transfer between stages? (arXiv:2406.11717, 2504.02904)

Directions of two stages are compared with template, position and layer the same for all stages (`shared`) and chosen per stage (`own`).
Each stage's vector is ablated from and added to each stage, which gives its effects and their forward transfer to later stages.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.jobs.compare.rows import StageRowBuilder
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.splits import number_groups
from ontogeny.steering.steer import check_can_generate
from ontogeny.studies.refusal.directions import (
    LayerPosition,
    PromptActivations,
    jackknife_cosine,
    random_cosine_bound,
    read_prompt_activations,
    split_half_cosine,
)
from ontogeny.studies.refusal.effects import REFUSAL_EDITS, RefusalEffects, refusal_edits
from ontogeny.studies.refusal.prompts import (
    InstructionSplit,
    PromptTemplate,
    RefusalPrompts,
    count_post_instruction_tokens,
    split_groups,
    template_of_stage,
)
from ontogeny.studies.refusal.settings import RefusalSettings

INPUTS = ("requests", "phrases", "template")


def settings(inputs: StudyInputs) -> RefusalSettings:
    """Default settings with the comparison's template, phrases and seed."""
    return RefusalSettings(template=inputs.template, phrases=inputs.phrases, seed=inputs.seed)


def cost(inputs: StudyInputs, sizes: StageSizes) -> float:
    """Estimated tokens that pass through the models."""
    texts = [e.text for e in inputs.requests.examples] if inputs.requests else []
    return sizes.stages * (text_tokens(texts) * sizes.blocks * 2 + 4 * min(len(texts), 200) * 20 * 25)


def run(stages: Mapping[str, Model], inputs: StudyInputs, settings: RefusalSettings) -> Iterator[Record]:
    """Rows of all stages: unsteered refusals, directions and their cosines, effects of each vector on each stage, transfer.

    Raises:
        BadInput: fewer than two stages, too few requests, or a model that is not causal.
    """
    if len(stages) < 2 or inputs.requests is None:
        raise BadInput(
            f"refusal needs at least two stages and `requests`, got {len(stages)} stages: add what is missing."
        )
    parts = split_groups(inputs.requests, limits=settings.limits, seed=settings.seed)
    common = PromptTemplate(settings.template, settings.separator)
    shared = {name: _survey_stage(stages[name], parts, common, settings) for name in stages}
    own = {}
    for name in stages:
        template = template_of_stage(stages[name], name, settings.templates, common)
        own[name] = shared[name] if template == common else _survey_stage(stages[name], parts, template, settings)
    spot = _shared_layer_position(list(shared.values()))
    best = {name: survey.best for name, survey in own.items()}
    for rows in (_choice_rows, _cosine_rows):
        yield from rows(shared, dict.fromkeys(stages, spot), "shared", settings)
        yield from rows(own, best, "own", settings)
    yield from _effect_rows(stages, parts[2], common, shared, spot, settings)


@dataclass(frozen=True, eq=False)
class StageRefusalSurvey:
    """Activations of one stage in one template, and the score of each layer and position."""

    template: PromptTemplate
    activations: PromptActivations
    scores: Float[Tensor, " spot"]
    """On the second part: refusal log-odds that ablation removes from the harmful plus those that addition gives the harmless."""
    end: tuple[str, ...]
    """Last tokens that all instructions share."""

    def score(self, spot: LayerPosition) -> float:
        return float(self.scores[self.activations.spots.index(spot)])

    @property
    def best(self) -> LayerPosition:
        return self.activations.spots[int(self.scores.argmax())]


@torch.no_grad()
def _survey_stage(
    model: Model,
    parts: tuple[InstructionSplit, InstructionSplit, InstructionSplit],
    template: PromptTemplate,
    settings: RefusalSettings,
) -> StageRefusalSurvey:
    check_can_generate(model)
    train, choice, _ = parts
    ids = template.tokens(model, [e.text for part in parts for e in part.all])
    positions = count_post_instruction_tokens(ids, limit=settings.positions)
    layers = range(1, max(1, math.floor(settings.depth * model.layers)) + 1)
    activations = read_prompt_activations(model, train, template, layers=layers, positions=positions)
    bad, good = (
        RefusalPrompts.of(model, template, kind, settings.phrases) for kind in (choice.harmful, choice.harmless)
    )
    plain = bad.log_odds().mean(), good.log_odds().mean()
    scores = []
    for spot in activations.spots:
        vector = activations.difference(spot)
        dose = settings.strength * float(vector.norm())
        ablation, addition = (
            refusal_edits(model, act, vector, layer=spot[0], dose=dose, where=settings.where) for act in REFUSAL_EDITS
        )
        scores.append(float(plain[0] - bad.log_odds(ablation).mean() + good.log_odds(addition).mean() - plain[1]))
    end = tuple(model.tokenizer.convert_ids_to_tokens(ids[0][-positions:].tolist()))
    return StageRefusalSurvey(template, activations, torch.tensor(scores, dtype=torch.float64), end)


def _shared_layer_position(surveys: Sequence[StageRefusalSurvey]) -> LayerPosition:
    """The layer and position with the best mean score over stages, each with its own vector."""
    common = [spot for spot in surveys[0].activations.spots if all(spot in of.activations.spots for of in surveys)]
    return max(common, key=lambda spot: sum(of.score(spot) for of in surveys))


def _table(settings: RefusalSettings, split: str, spot: LayerPosition | None = None) -> StageRowBuilder:
    position = "last" if spot is None or spot[1] == -1 else f"last-{-1 - spot[1]}"
    site = None if spot is None else Site("resid", spot[0])
    return StageRowBuilder("refusal", position, "mean_difference", settings.seed, split, site)


def _choice_rows(
    surveys: Mapping[str, StageRefusalSurvey], spots: Mapping[str, LayerPosition], held: str, settings: RefusalSettings
) -> Iterator[Record]:
    for name, survey in surveys.items():
        spot = spots[name]
        read_at = {of.end[spot[1]] for of in surveys.values()} if held == "shared" else set()
        yield _table(settings, "train", spot).row(
            "refusal_layer",
            float(spot[0]),
            name,
            n=len(survey.activations.group),
            note=f"the stages are read at different tokens: {', '.join(sorted(read_at))}" if len(read_at) > 1 else None,
            held=held,
            template=survey.template,
            window=len(survey.end),
            end=" ".join(survey.end),
            score=f"{survey.score(spot):.4f}",
        )


def _cosine_rows(
    surveys: Mapping[str, StageRefusalSurvey], spots: Mapping[str, LayerPosition], held: str, settings: RefusalSettings
) -> Iterator[Record]:
    for name, survey in surveys.items():
        own, spot = survey.activations, spots[name]
        table, n, d = _table(settings, "train", spot), len(own.group), own.x.shape[-1]
        halves, reason = split_half_cosine(own, spot, seed=settings.seed), "too few groups for halves"
        yield table.row("refusal_cosine", halves, name, name, n=n, control="split_half", reason=reason, held=held)
        for other in surveys:
            others, there = surveys[other].activations, spots[other]
            coords: dict[str, Any] = {"held": held, "other_layer": there[0], "other_position": there[1]}
            if others.x.shape[-1] != d:
                why = f"{other} is {others.x.shape[-1]} wide and {name} {d}"
                yield table.row("refusal_cosine", math.nan, name, other, n=0, reason=why, **coords)
                continue
            value, low, high = jackknife_cosine(own, spot, others, there)
            yield table.row("refusal_cosine", value, name, other, ends=(low, high), n=n, **coords)
    first, survey = next(iter(surveys.items()))
    d = survey.activations.x.shape[-1]
    yield _table(settings, "train").row(
        "refusal_cosine",
        0.0,
        first,
        n=d,
        ends=(-random_cosine_bound(d), random_cosine_bound(d)),
        control="random_direction",
        note=f"two random directions in {d} dimensions",
        held=held,
    )


@torch.no_grad()
def _effect_rows(
    stages: Mapping[str, Model],
    test: InstructionSplit,
    template: PromptTemplate,
    surveys: Mapping[str, StageRefusalSurvey],
    spot: LayerPosition,
    settings: RefusalSettings,
) -> Iterator[Record]:
    """Ablation of each stage's vector on the harmful instructions of each stage, addition on the harmless ones."""
    vectors = {name: survey.activations.difference(spot) for name, survey in surveys.items()}
    table, order = _table(settings, "test", spot), list(stages)
    for stage in stages:
        model = stages[stage]
        for act, examples, kind in zip(
            REFUSAL_EDITS, (test.harmful, test.harmless), ("harmful", "harmless"), strict=True
        ):
            prompts = RefusalPrompts.of(model, template, examples, settings.phrases)
            groups = number_groups([e.group for e in examples])
            weights = group_weights(groups, samples=settings.samples, seed=settings.seed)
            dose = settings.strength * float(vectors[stage].norm())
            count = int(groups.max()) + 1
            effects = RefusalEffects(prompts, table, stage, act, spot[0], dose, weights, count, settings)
            yield from effects.plain_rows(kind)
            changes = {}
            for source, vector in vectors.items():
                if len(vector) != model.d:
                    why = f"the vector of {source} has {len(vector)} dimensions, {stage} has {model.d}"
                    yield table.row("refusal_effect", math.nan, stage, source, n=0, reason=why, act=act)
                    continue
                near = len(stages) <= settings.crossed or source in (stage, order[0], order[-1])
                changes[source] = effects.changes(vector, phrases=near)
                yield from effects.effect_rows(source, changes[source])
            yield from effects.null_rows()
            yield from effects.transfer_rows(order, changes)
