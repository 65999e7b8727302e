"""Refusing, stage by stage: is it one direction, the same one, and does the vector of one stage work in another? (arXiv:2504.02904)

A direction for each stage and the cosines between them, with template, position and layer the same for all (`shared`) and each stage's
own (`own`); each stage's vector ablated from and added to each stage; and forward transfer: what an earlier stage's vector does to a
later one, divided by what the later one's own does.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.rows import StageRowBuilder
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.steering.generate import check_can_generate
from ontogeny.studies.refusal.directions import (
    LayerPosition,
    PromptActivations,
    jackknife_cosine,
    random_cosine_bound,
    read_prompt_activations,
    split_half_cosine,
)
from ontogeny.studies.refusal.effects import REFUSAL_EDITS, RefusalPrompts, refusal_edits
from ontogeny.studies.refusal.prompts import (
    Instruction,
    InstructionSplit,
    PromptTemplate,
    as_instructions,
    count_post_instruction_tokens,
    split_groups,
    template_of_stage,
)
from ontogeny.studies.refusal.settings import RefusalSettings
from ontogeny.studies.refusal.transfer import RefusalEffects, refusal_effect_rows, refusal_transfer_rows


def run_refusal_study(
    models: Mapping[str, Model],
    harmful: Sequence[str | Instruction],
    harmless: Sequence[str | Instruction],
    settings: RefusalSettings | None = None,
) -> Iterator[Record]:
    """Rows of all stages: unsteered refusing, directions and their cosines, effects of each vector on each stage, and transfer.

    Raises:
        BadInput: fewer than two stages, too few instructions, or a model that foretells no next token.
    """
    chosen = settings or RefusalSettings()
    if len(models) < 2:
        raise BadInput(f"a comparison needs at least two stages, given {len(models)}. Name another.")
    parts = split_groups(as_instructions(harmful), as_instructions(harmless), most=chosen.most, seed=chosen.seed)
    common = PromptTemplate(chosen.template, chosen.before)
    shared = {name: _survey_stage(models[name], parts, common, chosen) for name in models}
    own = {}
    for name in models:
        framing = template_of_stage(models[name], name, chosen.own, common)
        own[name] = shared[name] if framing == common else _survey_stage(models[name], parts, framing, chosen)
    spot = _shared_layer_position(list(shared.values()))
    yield from _choice_rows(shared, own, spot, chosen)
    yield from _cosine_rows(shared, dict.fromkeys(models, spot), "shared", chosen)
    yield from _cosine_rows(own, {name: survey.best for name, survey in own.items()}, "own", chosen)
    yield from _effect_rows(models, parts[2], common, shared, spot, chosen)


@dataclass(frozen=True, eq=False)
class StageRefusalSurvey:
    """What is known of a stage in one frame, without its test instructions."""

    framing: PromptTemplate
    seen: PromptActivations
    score: Float[Tensor, " spot"]
    """On the second part: log-odds of refusing that ablation takes from the harmful, and that addition gives to the harmless."""
    end: tuple[str, ...]
    """The tokens that all instructions share at their end."""

    @property
    def best(self) -> LayerPosition:
        return self.seen.spots[int(self.score.argmax())]


@torch.no_grad()
def _survey_stage(
    model: Model,
    parts: tuple[InstructionSplit, InstructionSplit, InstructionSplit],
    framing: PromptTemplate,
    settings: RefusalSettings,
) -> StageRefusalSurvey:
    check_can_generate(model)
    train, choice, _ = parts
    ids = framing.tokens(model, [one.text for part in parts for one in (*part.harmful, *part.harmless)])
    positions = count_post_instruction_tokens(ids, most=settings.positions)
    seen = read_prompt_activations(
        model,
        train,
        framing,
        layers=range(1, max(1, math.floor(settings.depth * model.layers)) + 1),
        positions=positions,
    )
    bad, good = (
        RefusalPrompts.of(model, framing, side, settings.phrases) for side in (choice.harmful, choice.harmless)
    )
    plain = bad.log_odds().mean(), good.log_odds().mean()
    scores = []
    for spot in seen.spots:
        vector = seen.difference(spot)
        dose = settings.strength * float(vector.norm())
        edits = [
            refusal_edits(model, act, vector, layer=spot[0], dose=dose, where=settings.where) for act in REFUSAL_EDITS
        ]
        scores.append(float(plain[0] - bad.log_odds(edits[0]).mean() + good.log_odds(edits[1]).mean() - plain[1]))
    end = tuple(model.tokenizer.convert_ids_to_tokens(ids[0][-positions:].tolist()))
    return StageRefusalSurvey(framing, seen, torch.tensor(scores, dtype=torch.float64), end)


def _shared_layer_position(surveys: Sequence[StageRefusalSurvey]) -> LayerPosition:
    """The layer and position that serve all stages best, each with its own vector, in the mean."""
    common = [spot for spot in surveys[0].seen.spots if all(spot in one.seen.spots for one in surveys)]
    return max(common, key=lambda spot: sum(float(one.score[one.seen.spots.index(spot)]) for one in surveys))


def _table(settings: RefusalSettings, spot: LayerPosition | None, split: str) -> StageRowBuilder:
    where = "last" if spot is None or spot[1] == -1 else f"last-{-1 - spot[1]}"
    return StageRowBuilder("refusal", where, "mean_difference", settings.seed, split)


def _choice_rows(
    shared: Mapping[str, StageRefusalSurvey],
    own: Mapping[str, StageRefusalSurvey],
    spot: LayerPosition,
    settings: RefusalSettings,
) -> Iterator[Record]:
    for held, surveys in (("shared", shared), ("own", own)):
        for name, one in surveys.items():
            at = spot if held == "shared" else one.best
            read_at = {survey.end[spot[1]] for survey in surveys.values()}
            differ = held == "shared" and len(read_at) > 1
            yield _table(settings, at, "train").row(
                "refusal_layer",
                float(at[0]),
                name,
                site=Site("resid", at[0]),
                n=len(one.seen.group),
                note=f"the stages are read at different tokens: {', '.join(sorted(read_at))}" if differ else None,
                coords={
                    "held": held,
                    "template": str(one.framing),
                    "window": str(len(one.end)),
                    "end": " ".join(one.end),
                    "score": f"{float(one.score[one.seen.spots.index(at)]):.4f}",
                },
            )


def _cosine_rows(
    surveys: Mapping[str, StageRefusalSurvey], spots: Mapping[str, LayerPosition], held: str, settings: RefusalSettings
) -> Iterator[Record]:
    names = list(surveys)
    for name in names:
        one, spot = surveys[name].seen, spots[name]
        table, site, n = _table(settings, spot, "train"), Site("resid", spot[0]), len(one.group)
        yield table.row(
            "refusal_cosine",
            split_half_cosine(one, spot, seed=settings.seed),
            name,
            name,
            site=site,
            n=n,
            control="split_half",
            coords={"held": held},
            reason="too few groups for halves",
        )
        for other in names:
            two, there = surveys[other].seen, spots[other]
            coords = {"held": held, "other_layer": str(there[0]), "other_position": str(there[1])}
            if two.x.shape[-1] != one.x.shape[-1]:
                why = f"{other} is {two.x.shape[-1]} wide and {name} {one.x.shape[-1]}"
                yield table.row("refusal_cosine", math.nan, name, other, site=site, n=0, coords=coords, reason=why)
                continue
            value, *ends = jackknife_cosine(one, spot, two, there)
            yield table.row(
                "refusal_cosine", value, name, other, site=site, ends=(ends[0], ends[1]), n=n, coords=coords
            )
    d = surveys[names[0]].seen.x.shape[-1]
    reach = random_cosine_bound(d)
    yield _table(settings, None, "train").row(
        "refusal_cosine",
        0.0,
        names[0],
        n=d,
        ends=(-reach, reach),
        control="random_direction",
        note=f"two random directions in {d} dimensions",
        coords={"held": held},
    )


@torch.no_grad()
def _effect_rows(
    models: Mapping[str, Model],
    test: InstructionSplit,
    framing: PromptTemplate,
    shared: Mapping[str, StageRefusalSurvey],
    spot: LayerPosition,
    settings: RefusalSettings,
) -> Iterator[Record]:
    vectors = {name: one.seen.difference(spot) for name, one in shared.items()}
    table, site, order = _table(settings, spot, "test"), Site("resid", spot[0]), list(models)
    for target in models:
        model = models[target]
        for act, side, kind in zip(REFUSAL_EDITS, (test.harmful, test.harmless), ("harmful", "harmless"), strict=True):
            asked = RefusalPrompts.of(model, framing, side, settings.phrases)
            names = {g: i for i, g in enumerate(dict.fromkeys(one.group for one in side))}
            weights = group_weights(
                torch.tensor([names[one.group] for one in side]), samples=settings.samples, seed=settings.seed
            )
            dose = settings.strength * float(vectors[target].norm())
            of = RefusalEffects(model, asked, act, spot[0], dose, weights, len(names), settings)
            yield from of.unsteered(table, target, kind)
            changed = {}
            for source, vector in vectors.items():
                if len(vector) != model.d:
                    why = f"the vector of {source} has {len(vector)} dimensions, {target} has {model.d}"
                    yield table.row(
                        "refusal_effect", math.nan, target, source, site=site, n=0, coords={"act": act}, reason=why
                    )
                    continue
                near = len(models) <= settings.crossed or source in (target, order[0], order[-1])
                changed[source] = of.by(vector, said=near)
                yield from refusal_effect_rows(table, site, target, source, of, changed[source])
            yield from of.nulls(table, site, target)
            yield from refusal_transfer_rows(table, site, target, order, of, changed)
