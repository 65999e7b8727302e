"""Study: is refusal one direction, and does it transfer between stages? (arXiv:2406.11717, 2504.02904)

Directions of two stages are compared with template, position and layer the same for all stages (`shared`) and chosen per stage (`own`).
Each stage's vector is ablated from and added to each stage, which gives its effects and their forward transfer to later stages.
As in the method, a vector counts as a refusal direction only if adding it makes the stage refuse harmless instructions and ablating it
leaves their next token alone; a stage without such a vector has no direction, and its rows say why.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.data.templates import template_name
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.models.model import Model
from ontogeny.records import Record, StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.splits import number_groups
from ontogeny.steering.instruction_split import InstructionSplit, count_post_instruction_tokens, split_groups
from ontogeny.steering.refusal_direction import (
    LayerPosition,
    PromptActivations,
    jackknife_cosine,
    random_cosine_bound,
    read_prompt_activations,
    split_half_cosine,
)
from ontogeny.steering.refusal_effects import REFUSAL_EDITS, RefusalEffects, refusal_edits
from ontogeny.steering.refusal_prompts import PromptTemplate, RefusalPrompts
from ontogeny.steering.steer import check_can_generate
from ontogeny.studies.refusal.settings import RefusalSettings

TITLE = "Refusal"
INPUTS = ("requests", "phrases", "template")


def settings(inputs: StudyInputs) -> RefusalSettings:
    """Default settings with the comparison's template, phrases and seed."""
    return RefusalSettings(template=inputs.template or False, phrases=inputs.phrases, seed=inputs.seed)


def digest(inputs: StudyInputs) -> list[Any]:
    """Plain values that decide the numbers; runs made before the filters lack the last one."""
    return [*inputs.digest(INPUTS), "filtered by KL and induced refusals"]


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
    each_in_own = settings.template is True
    common = PromptTemplate(False if each_in_own else settings.template, settings.separator)
    shared = {name: _survey_stage(stages[name], parts, common, settings) for name in stages}
    own = {}
    for name in stages:
        of_stage = PromptTemplate.of_stage(stages[name], settings.templates.get(name, True), settings.separator)
        template = of_stage if of_stage.template else common
        own[name] = shared[name] if template == common else _survey_stage(stages[name], parts, template, settings)
    chosen = {
        "shared": _choices_at_one_place(shared),
        "own": {name: _Choice(survey, survey.best, survey.why_none) for name, survey in own.items()},
    }
    for rows in (_choice_rows, _cosine_rows):
        for held, choices in chosen.items():
            yield from rows(choices, held, settings)
    asked = _choices_at_one_place(own) if each_in_own else chosen["shared"]
    yield from _effect_rows(stages, parts[2], asked, settings)


@dataclass(frozen=True, eq=False)
class StageRefusalSurvey:
    """Activations of one stage in one template, and the scores of the vector at each layer and position, on the second part."""

    template: PromptTemplate
    activations: PromptActivations
    scores: Float[Tensor, " spot"]
    """Refusal log-odds that ablation removes from the harmful plus those that addition gives the harmless."""
    induced: Float[Tensor, " spot"]
    """Refusal log-odds of the harmless instructions with the vector added."""
    kl: Float[Tensor, " spot"]
    """KL of the next token from the unsteered stage, harmless instructions, vector ablated; nats."""
    end: tuple[str, ...]
    """Last tokens that all instructions share."""
    limits: tuple[float, float]
    """`max_kl` and `min_induced` of the settings."""

    def at(self, spot: LayerPosition) -> int:
        return self.activations.spots.index(spot)

    @property
    def passes(self) -> Bool[Tensor, " spot"]:
        """Whether the vector meets both filters of the method."""
        max_kl, min_induced = self.limits
        return (self.kl < max_kl) & (self.induced > min_induced)

    @property
    def best(self) -> LayerPosition:
        """The highest score among those that pass the filters, or among all if none does."""
        passes = self.passes if self.passes.any() else torch.ones_like(self.passes)
        return self.activations.spots[int(self.scores.where(passes, -torch.inf).argmax())]

    def why_not(self, spot: LayerPosition) -> str:
        """The filters that the vector fails; '' if it passes."""
        at, (max_kl, min_induced) = self.at(spot), self.limits
        texts = []
        if not self.induced[at] > min_induced:
            texts.append(
                f"added to harmless instructions it brings the log-odds of refusing to {self.induced[at]:.2f}, not above {min_induced:g}"
            )
        if not self.kl[at] < max_kl:
            texts.append(f"ablated from them it changes the next token by {self.kl[at]:.2f} nats, not below {max_kl:g}")
        return f"no refusal direction: {'; '.join(texts)}" if texts else ""

    @property
    def why_none(self) -> str:
        """Why no layer and position has a refusal direction, by the best of them; '' if one has."""
        if self.passes.any():
            return ""
        return f"{self.why_not(self.best)} (the best of {len(self.scores)} layers and positions)"


@dataclass(frozen=True, eq=False)
class _Choice:
    """The layer and position at which a stage's direction is taken."""

    survey: StageRefusalSurvey
    spot: LayerPosition
    why_not: str
    """Why the vector there is no refusal direction; '' if it is one."""

    @property
    def vector(self) -> Float[Tensor, " d"]:
        return self.survey.activations.difference(self.spot)


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
    unsteered = good.log_probs()
    scores, induced, kl = [], [], []
    for spot in activations.spots:
        vector = activations.difference(spot)
        dose = settings.strength * float(vector.norm())
        ablation, addition = (
            refusal_edits(model, act, vector, layer=spot[0], dose=dose, where=settings.where) for act in REFUSAL_EDITS
        )
        induced.append(float(good.log_odds(addition).mean()))
        scores.append(float(plain[0] - bad.log_odds(ablation).mean() + induced[-1] - plain[1]))
        kl.append(float((unsteered.exp() * (unsteered - good.log_probs(ablation))).sum(1).mean()))
    end = tuple(model.tokenizer.convert_ids_to_tokens(ids[0][-positions:].tolist()))
    limits = settings.max_kl, settings.min_induced
    return StageRefusalSurvey(template, activations, _column(scores), _column(induced), _column(kl), end, limits)


def _column(values: Sequence[float]) -> Float[Tensor, " spot"]:
    return torch.tensor(values, dtype=torch.float64)


def _shared_layer_position(surveys: Sequence[StageRefusalSurvey]) -> LayerPosition:
    """The layer and position that passes the filters at most stages; of these the best mean score over the stages where it passes."""
    common = [spot for spot in surveys[0].activations.spots if all(spot in of.activations.spots for of in surveys)]

    def rank(spot: LayerPosition) -> tuple[int, float]:
        passing = [of for of in surveys if of.passes[of.at(spot)]]
        scores = [float(of.scores[of.at(spot)]) for of in passing or surveys]
        return len(passing), sum(scores) / len(scores)

    return max(common, key=rank)


def _choices_at_one_place(surveys: Mapping[str, StageRefusalSurvey]) -> dict[str, _Choice]:
    """The direction of each stage at one layer and position for all."""
    spot = _shared_layer_position(list(surveys.values()))
    return {name: _Choice(survey, spot, survey.why_not(spot)) for name, survey in surveys.items()}


def _table(settings: RefusalSettings, split: str, spot: LayerPosition | None = None) -> StageRowBuilder:
    position = "last" if spot is None or spot[1] == -1 else f"last-{-1 - spot[1]}"
    site = None if spot is None else Site("resid", spot[0])
    return StageRowBuilder("refusal", position, "mean_difference", settings.seed, split, site)


def _choice_rows(choices: Mapping[str, _Choice], held: str, settings: RefusalSettings) -> Iterator[Record]:
    for name, choice in choices.items():
        survey, spot, why = choice.survey, choice.spot, choice.why_not
        read_at = {of.survey.end[spot[1]] for of in choices.values()} if held == "shared" else set()
        yield _table(settings, "train", spot).row(
            "refusal_layer",
            math.nan if why else float(spot[0]),
            name,
            n=0 if why else len(survey.activations.group),
            note=f"the stages are read at different tokens: {', '.join(sorted(read_at))}" if len(read_at) > 1 else None,
            reason=why,
            held=held,
            template=survey.template,
            window=len(survey.end),
            end=" ".join(survey.end),
            score=f"{survey.scores[survey.at(spot)]:.4f}",
            kl=f"{survey.kl[survey.at(spot)]:.4f}",
            induced=f"{survey.induced[survey.at(spot)]:.4f}",
        )


def _cosine_rows(choices: Mapping[str, _Choice], held: str, settings: RefusalSettings) -> Iterator[Record]:
    for name, choice in choices.items():
        own, spot = choice.survey.activations, choice.spot
        table, n, d = _table(settings, "train", spot), len(own.group), own.x.shape[-1]
        halves, reason = split_half_cosine(own, spot, seed=settings.seed), "too few groups for halves"
        if choice.why_not:
            halves, n, reason = math.nan, 0, choice.why_not
        yield table.row("refusal_cosine", halves, name, name, n=n, control="split_half", reason=reason, held=held)
        for other, others in choices.items():
            there = others.spot
            coords: dict[str, Any] = {"held": held, "other_layer": there[0], "other_position": there[1]}
            width = others.survey.activations.x.shape[-1]
            why = f"{other} is {width} wide and {name} {d}" if width != d else ""
            if absent := next(((key, of.why_not) for key, of in ((name, choice), (other, others)) if of.why_not), None):
                why = f"{absent[0]} has {absent[1]}"
            if why:
                yield table.row("refusal_cosine", math.nan, name, other, n=0, reason=why, **coords)
                continue
            value, low, high = jackknife_cosine(own, spot, others.survey.activations, there)
            yield table.row("refusal_cosine", value, name, other, ends=(low, high), n=n, **coords)
    first, choice = next(iter(choices.items()))
    d = choice.survey.activations.x.shape[-1]
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
    choices: Mapping[str, _Choice],
    settings: RefusalSettings,
) -> Iterator[Record]:
    """Ablation of each stage's vector on the harmful instructions of each stage, addition on the harmless ones.

    Args:
        choices: At one layer and position; instructions are asked in the template of the stage's survey.
    """
    spot = next(iter(choices.values())).spot
    vectors = {name: choice.vector for name, choice in choices.items()}
    table, order = _table(settings, "test", spot), list(stages)
    for stage in stages:
        model, template = stages[stage], choices[stage].survey.template
        for act, examples, kind in zip(
            REFUSAL_EDITS, (test.harmful, test.harmless), ("harmful", "harmless"), strict=True
        ):
            prompts = RefusalPrompts.of(model, template, examples, settings.phrases)
            groups = number_groups([e.group for e in examples])
            weights = group_weights(groups, samples=settings.samples, seed=settings.seed)
            dose = settings.strength * float(vectors[stage].norm())
            count = int(groups.max()) + 1
            effects = RefusalEffects(prompts, table, stage, act, spot[0], dose, weights, count, settings.effects)
            yield from effects.plain_rows(kind, template_name(model.tokenizer, template.template))
            changes = {}
            for source, vector in vectors.items():
                why = f"{source} has {choices[source].why_not}" if choices[source].why_not else ""
                if len(vector) != model.d:
                    why = f"the vector of {source} has {len(vector)} dimensions, {stage} has {model.d}"
                if why:
                    yield table.row("refusal_effect", math.nan, stage, source, n=0, reason=why, act=act)
                    continue
                near = len(stages) <= settings.crossed or source in (stage, order[0], order[-1])
                changes[source] = effects.changes(vector, phrases=near)
                yield from effects.effect_rows(source, changes[source])
            yield from effects.null_rows()
            yield from effects.transfer_rows(order, changes)
