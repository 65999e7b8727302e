"""Evaluate steering vectors on one concept at one checkpoint.

1. Read the fit split once (`steering_vectors`).   2. Choose alpha on development items, whose prompts run once (`grid_search`).
3. On test items: the effect at every alpha beside random directions, permuted labels and a prompt (`nulls`).   4. Side effects, samples.
5. All methods at equal KL on neutral text. `rows` turns the result into records, `verdicts` reads these.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.evaluate.grid_search import GridCell, GridResult, check_alphas, grid_search
from ontogeny.jobs.evaluate.margins import ForwardCounter, ScoredItems, can_cache_prompts
from ontogeny.jobs.evaluate.nulls import EffectWithNulls, measure_with_nulls, prompt_baseline
from ontogeny.jobs.evaluate.plan import EvaluationPlan, default_instruction
from ontogeny.jobs.evaluate.steering_vectors import (
    fit_vectors,
    from_direction,
    read_training_activations,
    refit_on_permuted_labels,
)
from ontogeny.models.model import Model
from ontogeny.steering.generate import DecodingConfig
from ontogeny.steering.methods import SteeringVectors
from ontogeny.steering.samples import SteeringSample, steering_samples
from ontogeny.steering.side_effects import TextSideEffects, alpha_at_equal_kl, distinct_n, measure_side_effects
from ontogeny.steering.steer import Edits, as_edits
from ontogeny.steering.token_selection import check_token_selection
from ontogeny.tasks.accuracy import MultipleChoiceTask, QuestionAccuracy
from ontogeny.tasks.contrast_items import ContrastItem, Splits

_MAX_NEUTRAL_TEXTS = 32


@dataclass(frozen=True, eq=False)
class EditSideEffects:
    cost: TextSideEffects
    tasks: Mapping[str, tuple[QuestionAccuracy, QuestionAccuracy]]
    """Unsteered and steered."""


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method on one concept at one checkpoint."""

    method: str
    choice_axis: str
    """The grid axis beside alpha: `site`, or `k`."""
    origin: str
    """Source of a direction that was fitted elsewhere."""
    is_fitted_on_test: bool
    """Whether that direction was fitted on all groups of this concept, those of the test items among them."""
    grid: GridResult
    dose_response: tuple[EffectWithNulls, ...]
    """On test items, one per alpha that is not 0, at the chosen site or number of heads."""
    base: Float[Tensor, "item side"]
    """Nats per token of the test items' continuations, unsteered."""
    steered: Float[Tensor, "item side"]
    margins: tuple[Float[Tensor, " item"], Float[Tensor, " item"]]
    """Unsteered and steered."""
    side_effects: EditSideEffects
    edits: Edits
    at_equal_kl: tuple[float, float, Float[Tensor, " item"]] | str | None
    """Target KL, alpha and shift of each item, or why no alpha reaches the target; None for an ablation."""
    nulls_at_equal_kl: EffectWithNulls | None = None
    """The same alpha beside random directions, in a lineage with a data-mix axis."""

    @property
    def desired_sign(self) -> int:
        """Sign of the desired change of the margin: an ablation should lower it."""
        return -1 if self.method == "ablate" else 1


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """One concept at one checkpoint."""

    concept: Concept
    splits: Splits
    methods: tuple[MethodResult, ...]
    instruction: str
    prompt_shift: Float[Tensor, " item"]
    samples: tuple[SteeringSample, ...]
    distinct: Mapping[str, float]
    """Distinct-2 of the texts of each arm."""
    passes: ForwardCounter
    neutral: str
    """Description of the neutral texts."""


@dataclass(frozen=True, eq=False)
class _Evaluator:
    """Inputs of all methods: the model, the plan, neutral texts and tasks."""

    model: Model
    ask: EvaluationPlan
    texts: Sequence[str]
    tasks: Sequence[MultipleChoiceTask]
    plain: Mapping[str, QuestionAccuracy]
    passes: ForwardCounter
    say: Callable[[str], None]
    has_siblings: bool

    def cost(self, edits: Edits) -> TextSideEffects:
        return measure_side_effects(self.model, self.texts, edits, batch=64)

    def items(self, items: Sequence[ContrastItem], *, cached: bool) -> ScoredItems:
        return ScoredItems.of(self.model, items, cached=cached, passes=self.passes, template=self.ask.concept.template)

    def evaluate(self, vectors: SteeringVectors, nulls: Sequence[SteeringVectors]) -> MethodResult:
        """Choose alpha, then measure the effect and the side effects."""
        model, plan, sides = self.model, self.ask.settings, self.ask.splits
        cached = can_cache_prompts(vectors.edits(model, next(iter(vectors.shifts)), 1.0))
        grid = grid_search(
            self.items(sides.development, cached=cached),
            vectors,
            plan.alphas,
            lambda edits: self.cost(edits).divergence,
            most=plan.most,
            desired_sign=-1.0 if vectors.is_ablation else 1.0,
        )
        choice, test = grid.chosen.choice, self.items(sides.test, cached=cached)
        base = test.scores()
        dose_response = []
        for alpha in [a for a in ((1.0,) if vectors.is_ablation else check_alphas(plan.alphas)) if a]:
            self.say(f"{vectors.method} at alpha {alpha:g} against {plan.controls} controls")
            dose_response.append(
                measure_with_nulls(
                    test, vectors, choice, alpha, controls=plan.controls, permuted=nulls, base=base.margin
                )
            )
        edits = vectors.edits(model, choice, grid.chosen.alpha)
        steered = test.scores(edits)
        at_equal_kl = None if vectors.is_ablation else self.at_equal_kl(vectors, grid.chosen, base.margin)
        nulls_at_equal_kl = None
        if self.has_siblings and isinstance(at_equal_kl, tuple):
            self.say(f"{vectors.method} at equal KL against {plan.controls} controls")
            nulls_at_equal_kl = measure_with_nulls(
                test, vectors, choice, at_equal_kl[1], controls=plan.controls, base=base.margin
            )
        self.say(f"side effects of {vectors.method}")
        tasks = {task.name: (self.plain[task.name], task.answered(model, edits)) for task in self.tasks}
        return MethodResult(
            vectors.method,
            vectors.choice_axis,
            vectors.origin,
            vectors.fitted_on == self.ask.concept.hash,
            grid,
            tuple(dose_response),
            base.per_token,
            steered.per_token,
            (base.margin, steered.margin),
            EditSideEffects(self.cost(edits), tasks),
            edits,
            at_equal_kl,
            nulls_at_equal_kl,
        )

    def at_equal_kl(
        self, vectors: SteeringVectors, chosen: GridCell, base: Float[Tensor, " item"]
    ) -> tuple[float, float, Float[Tensor, " item"]] | str:
        """The effect where the KL on neutral text is the same for all methods, or why no alpha gets there."""
        target, sign = self.ask.settings.equal_kl, math.copysign(1.0, chosen.alpha)

        def kl(alpha: float) -> float:
            return float(self.cost(vectors.edits(self.model, chosen.choice, sign * alpha)).divergence.mean())

        try:
            alpha = sign * alpha_at_equal_kl(kl, target)
        except BadInput as fault:
            return str(fault)
        edits = vectors.edits(self.model, chosen.choice, alpha)
        scores = self.items(self.ask.splits.test, cached=can_cache_prompts(edits)).scores(edits)
        return target, alpha, scores.margin - base


def evaluate_concept(
    model: Model, ask: EvaluationPlan, *, say: Callable[[str], None] = lambda _: None, has_siblings: bool = False
) -> EvaluationResult:
    """Evaluate all methods for one concept at one checkpoint; `say` is called with a line of progress.

    Args:
        has_siblings: Whether the checkpoint is compared with siblings along a data-mix axis: then the effect at equal KL has its nulls.
    """
    plan, passes = ask.settings, ForwardCounter()
    texts, neutral = _neutral_texts(model, ask)
    names = [m for m in ask.methods if isinstance(m, str)]
    directions = [m for m in ask.methods if not isinstance(m, str)]
    where = check_token_selection(plan.where)
    given = [
        from_direction(model, d, name="given" if i == 0 else f"given {i + 1}", where=where)
        for i, d in enumerate(directions)
    ]
    say("reading")
    data = read_training_activations(
        model, ask.concept, ask.splits, names, plan.sites, extra=[d.site for d in directions]
    )
    tasks = [
        MultipleChoiceTask.of(model, name, rows, limit=plan.task_limit, seed=plan.seed)
        for name, rows in ask.tasks.items()
    ]
    plain = {task.name: task.answered(model) for task in tasks}
    evaluator = _Evaluator(model, ask, texts, tasks, plain, passes, say, has_siblings)
    methods = []
    for vectors in [*(fit_vectors(data, name, ks=plan.ks, where=where) for name in names), *given]:
        say(f"choosing alpha of {vectors.method}")
        nulls = refit_on_permuted_labels(data, vectors, samples=plan.shuffles, seed=plan.seed) if plan.shuffles else []
        methods.append(evaluator.evaluate(vectors, nulls))
    instruction = plan.instruction or default_instruction(ask)
    shift = prompt_baseline(evaluator.items(ask.splits.test, cached=False), instruction)
    say("generating samples")
    samples = _samples(model, ask, methods) if plan.samples else []
    return EvaluationResult(
        ask.concept,
        ask.splits,
        tuple(methods),
        instruction,
        shift,
        tuple(samples),
        _distinct_2(model, samples),
        passes,
        neutral,
    )


def _samples(model: Model, ask: EvaluationPlan, methods: Sequence[MethodResult]) -> list[SteeringSample]:
    count = ask.settings.samples
    distinct = list(dict.fromkeys(item.prompt for item in ask.splits.test))
    prompts = [distinct[i * len(distinct) // count] for i in range(min(count, len(distinct)))]
    conditions: list[tuple[str, float | None, Edits]] = [("unsteered", None, [])]
    for method in methods:
        name, alpha, controls = method.method, method.grid.chosen.alpha, as_edits(method.edits)
        conditions.append((name, alpha, method.edits))
        conditions.append((f"control of {name}", alpha, [edit.null(i) for i, edit in enumerate(controls)]))
    return steering_samples(
        model, prompts, conditions, DecodingConfig(ask.settings.tokens), template=ask.concept.template
    )


def _distinct_2(model: Model, samples: Sequence[SteeringSample]) -> dict[str, float]:
    shares = {}
    for arm in dict.fromkeys(sample.arm for sample in samples):
        texts = [sample.text for sample in samples if sample.arm == arm]
        ids = model.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        shares[arm] = distinct_n([torch.tensor(row, dtype=torch.long) for row in ids])
    return shares


def _neutral_texts(model: Model, ask: EvaluationPlan) -> tuple[list[str], str]:
    """Neutral texts of 2 tokens up to the context, and their description."""
    texts = list(ask.neutral) or [ask.concept.texts[i] for i in ask.splits.fit.tolist()]
    description = "texts that were given" if ask.neutral else "the concept's own texts, not neutral ones"
    sizes = [len(ids) for ids in model.tokenizer(texts, verbose=False)["input_ids"]]
    fit = [text for text, size in zip(texts, sizes, strict=True) if 2 <= size <= model.context]
    if not fit:
        raise BadInput(f"`neutral` must have a text of 2 to {model.context} tokens, got none: add one.")
    return fit[:: max(1, len(fit) // _MAX_NEUTRAL_TEXTS)][:_MAX_NEUTRAL_TEXTS], description
