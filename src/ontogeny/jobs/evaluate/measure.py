"""Does a vector work? Fitted on some groups, alpha chosen on others, its effect told on the rest, beside its nulls and its costs.

1. Read the fit side once (`recipes`).   2. Try the grid on development items, whose prompts run once (`selection`).
3. On test items: effect at every alpha beside random directions, permuted labels and a prompt (`nulls`).   4. Side effects, samples.
5. Several methods are compared again where they cost the same. All of it becomes rows (`judging_rows`); the verdict is made of these.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.evaluate.contrast_items import Splits
from ontogeny.jobs.evaluate.grid_search import GridResult, check_alphas, grid_search
from ontogeny.jobs.evaluate.margins import ForwardCounter, ScoredItems, can_cache_prompts
from ontogeny.jobs.evaluate.nulls import EffectWithNulls, measure_with_nulls, prompt_baseline
from ontogeny.jobs.evaluate.plan import EvaluationPlan, default_instruction
from ontogeny.jobs.evaluate.steering_vectors import (
    SteeringVectors,
    fit_vectors,
    from_direction,
    read_training_activations,
    refit_on_permuted_labels,
)
from ontogeny.models.model import Model
from ontogeny.steering.generate import DecodingConfig
from ontogeny.steering.samples import SteeringSample, steering_samples
from ontogeny.steering.side_effects import TextSideEffects, alpha_at_equal_kl, distinct_n, measure_side_effects
from ontogeny.steering.steer import Edits, as_edits
from ontogeny.steering.token_selection import check_token_selection
from ontogeny.tasks.accuracy import MultipleChoiceTask, QuestionAccuracy

_MAX_NEUTRAL_TEXTS = 32
"""Neutral texts, at most."""


@dataclass(frozen=True, eq=False)
class EditSideEffects:
    """What one edit did beside its effect."""

    cost: TextSideEffects
    tasks: Mapping[str, tuple[QuestionAccuracy, QuestionAccuracy]]
    """Unsteered and steered."""


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method on one concept at one checkpoint: everything that rows are made of."""

    method: str
    grid: GridResult
    response: tuple[EffectWithNulls, ...]
    """On test items, one an alpha that is not 0, at the choice that was made."""
    chosen: EffectWithNulls
    base: Float[Tensor, "item side"]
    """Nats per token of the test items' continuations, unsteered."""
    steered: Float[Tensor, "item side"]
    margins: tuple[Float[Tensor, " item"], Float[Tensor, " item"]]
    """Unsteered and steered."""
    side: EditSideEffects
    edits: Edits
    choices: str
    """What was chosen beside alpha: `site`, or `k`."""
    wish: float = 1.0
    origin: str = ""
    """Where a given direction was learned."""
    equal: tuple[float, float, Float[Tensor, " item"]] | str | None = None
    """Cost, alpha, and shift of each item at the cost at which all are compared, or why there is none; None for what has no alpha."""


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """One concept at one checkpoint."""

    concept: Concept
    sides: Splits
    judged: tuple[MethodResult, ...]
    instruction: str
    prompt_shift: Float[Tensor, " item"]
    samples: tuple[SteeringSample, ...]
    distinct: Mapping[str, float]
    """Share of different pairs of tokens in what each arm said."""
    passes: ForwardCounter
    neutral: str
    """Which texts counted as neutral."""
    tasks: Mapping[str, int] = field(default_factory=dict)
    """Questions that were left out of each task, being longer than the context."""


def evaluate_concept(
    model: Model, ask: EvaluationPlan, *, say: Callable[[str], None] = lambda _: None
) -> EvaluationResult:
    """Everything of one concept at one checkpoint."""
    plan, passes = ask.plan, ForwardCounter()
    texts, told = _neutral_texts(model, ask)
    names = [m for m in ask.methods if isinstance(m, str)]
    others = [m for m in ask.methods if not isinstance(m, str)]
    where = check_token_selection(plan.where)
    recipes: list[SteeringVectors] = [
        from_direction(model, d, name="given" if i == 0 else f"given {i + 1}", where=where)
        for i, d in enumerate(others)
    ]
    say("reading")
    have = read_training_activations(model, ask.concept, ask.sides, names, plan.sites, extra=[d.site for d in others])
    recipes = [fit_vectors(have, name, ks=plan.ks, where=where) for name in names] + recipes
    tasks = [
        MultipleChoiceTask.of(model, name, rows, limit=plan.task_limit, seed=plan.seed)
        for name, rows in ask.tasks.items()
    ]
    plain = {task.name: task.answered(model) for task in tasks}

    def cost(edits: Edits) -> TextSideEffects:
        return measure_side_effects(model, texts, edits, batch=64)

    judged = []
    for one in recipes:
        say(f"choosing alpha of {one.method}")
        nulls = refit_on_permuted_labels(have, one, samples=plan.shuffles, seed=plan.seed) if plan.shuffles else []
        judged.append(_evaluate_method(model, ask, one, nulls, cost, tasks, plain, passes, say))
    instruction = plan.instruction or default_instruction(ask)
    asked = ScoredItems.of(model, ask.sides.test, cached=False, passes=passes)
    shift = prompt_baseline(asked, instruction)
    say("comparing at equal cost")
    judged = _at_equal_cost(model, ask, recipes, judged, cost, passes)
    say("speaking")
    samples = _samples(model, ask, judged) if plan.samples else []
    said = _distinct_n(model, samples)
    left = {task.name: task.left_out for task in tasks}
    return EvaluationResult(
        ask.concept, ask.sides, tuple(judged), instruction, shift, tuple(samples), said, passes, told, left
    )


def _evaluate_method(
    model: Model,
    ask: EvaluationPlan,
    one: SteeringVectors,
    nulls: Sequence[SteeringVectors],
    cost: Callable[[Edits], TextSideEffects],
    tasks: Sequence[MultipleChoiceTask],
    plain: Mapping[str, QuestionAccuracy],
    passes: ForwardCounter,
    say: Callable[[str], None],
) -> MethodResult:
    plan, wish = ask.plan, -1.0 if one.ablates else 1.0
    first = next(iter(one.shifts))
    cached = can_cache_prompts(one.edits(model, first, 1.0))
    development = ScoredItems.of(model, ask.sides.development, cached=cached, passes=passes)
    grid = grid_search(
        development,
        one,
        plan.alphas,
        lambda edits: cost(edits).divergence,
        most=plan.most,
        wish=wish,
    )
    asked = ScoredItems.of(model, ask.sides.test, cached=cached, passes=passes)
    base = asked.scores()
    response = []
    for alpha in [a for a in ((1.0,) if one.ablates else check_alphas(plan.alphas)) if a]:
        say(f"{one.method} at alpha {alpha:g} against {plan.controls} controls")
        response.append(
            measure_with_nulls(
                asked, one, grid.chosen.choice, alpha, controls_=plan.controls, others=nulls, base=base.margin
            )
        )
    chosen = next(r for r in response if r.alpha == grid.chosen.alpha)
    edits = one.edits(model, grid.chosen.choice, grid.chosen.alpha)
    steered = asked.scores(edits)
    say(f"side effects of {one.method}")
    side = EditSideEffects(cost(edits), {t.name: (plain[t.name], t.answered(model, edits)) for t in tasks})
    return MethodResult(
        one.method,
        grid,
        tuple(response),
        chosen,
        base.per_token,
        steered.per_token,
        (base.margin, steered.margin),
        side,
        edits,
        one.axis,
        wish,
        one.origin,
    )


def _at_equal_cost(
    model: Model,
    ask: EvaluationPlan,
    recipes: Sequence[SteeringVectors],
    judged: Sequence[MethodResult],
    cost: Callable[[Edits], TextSideEffects],
    passes: ForwardCounter,
) -> list[MethodResult]:
    """Vectors compared where each moves the model as far from itself."""
    target, made = ask.plan.equal_kl, []
    for one, old in zip(recipes, judged, strict=True):
        if one.ablates:
            made.append(old)
            continue
        sign, choice = math.copysign(1.0, old.grid.chosen.alpha), old.grid.chosen.choice

        def at(alpha: float, one: SteeringVectors = one, choice: str = choice, sign: float = sign) -> float:
            return float(cost(one.edits(model, choice, sign * alpha)).divergence.mean())

        try:
            alpha = sign * alpha_at_equal_kl(at, target)
        except BadInput as fault:
            made.append(replace(old, equal=str(fault)))
            continue
        edits = one.edits(model, choice, alpha)
        asked = ScoredItems.of(model, ask.sides.test, cached=can_cache_prompts(edits), passes=passes)
        shift = asked.scores(edits).margin - old.margins[0]
        made.append(replace(old, equal=(target, alpha, shift)))
    return made


def _samples(model: Model, ask: EvaluationPlan, judged: Sequence[MethodResult]) -> list[SteeringSample]:
    plan = ask.plan
    every = list(dict.fromkeys(item.prompt for item in ask.sides.test))
    prompts = [every[i * len(every) // plan.samples] for i in range(min(plan.samples, len(every)))]
    arms: list[tuple[str, float | None, Edits]] = [("unsteered", None, [])]
    for one in judged:
        arms.append((one.method, one.grid.chosen.alpha, one.edits))
        arms.append(
            (f"control of {one.method}", one.grid.chosen.alpha, [e.null(i) for i, e in enumerate(as_edits(one.edits))])
        )
    return steering_samples(model, prompts, arms, DecodingConfig(plan.tokens))


def _distinct_n(model: Model, samples: Sequence[SteeringSample]) -> dict[str, float]:
    found = {}
    for arm in dict.fromkeys(sample.arm for sample in samples):
        texts = [sample.text for sample in samples if sample.arm == arm]
        ids = model.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        found[arm] = distinct_n([torch.tensor(row, dtype=torch.long) for row in ids])
    return found


def _neutral_texts(model: Model, ask: EvaluationPlan) -> tuple[list[str], str]:
    """Texts of a length that counts, and which they are."""
    texts = list(ask.neutral) or [ask.concept.texts[i] for i in ask.sides.fit.tolist()]
    told = "texts that were given" if ask.neutral else "the concept's own texts, not neutral ones"
    sizes = [len(ids) for ids in model.tokenizer(texts, verbose=False)["input_ids"]]
    fit = [text for text, size in zip(texts, sizes, strict=True) if 2 <= size <= model.context]
    if not fit:
        raise BadInput(f"no neutral text has 2 to {model.context} tokens. Give others with --neutral.")
    return fit[:: max(1, len(fit) // _MAX_NEUTRAL_TEXTS)][:_MAX_NEUTRAL_TEXTS], told
