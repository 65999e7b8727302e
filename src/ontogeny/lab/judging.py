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

from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab.asked import Asked, Passes, kept_prompts
from ontogeny.lab.equal_cost import alpha_at
from ontogeny.lab.generation import Decoding
from ontogeny.lab.items import Sides
from ontogeny.lab.judging_plan import Asking, default_instruction
from ontogeny.lab.nulls import Against, against_nulls, prompted
from ontogeny.lab.options import Answered, Task
from ontogeny.lab.recipes import Recipe, given, material, recipe, shuffled
from ontogeny.lab.selection import Grid, checked_alphas, search
from ontogeny.lab.side_by_side import Sample, side_by_side
from ontogeny.lab.side_effects import Cost, distinct, neutral_cost
from ontogeny.lab.steering import Edits, edits_of
from ontogeny.lab.tokens import checked_where
from ontogeny.model import Model

NEUTRAL = 32
"""Neutral texts, at most."""


@dataclass(frozen=True, eq=False)
class SideEffects:
    """What one edit did beside its effect."""

    cost: Cost
    tasks: Mapping[str, tuple[Answered, Answered]]
    """Unsteered and steered."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One method on one concept at one checkpoint: everything that rows are made of."""

    method: str
    grid: Grid
    response: tuple[Against, ...]
    """On test items, one an alpha that is not 0, at the choice that was made."""
    chosen: Against
    base: Float[Tensor, "item side"]
    """Nats per token of the test items' continuations, unsteered."""
    steered: Float[Tensor, "item side"]
    margins: tuple[Float[Tensor, " item"], Float[Tensor, " item"]]
    """Unsteered and steered."""
    side: SideEffects
    edits: Edits
    choices: str
    """What was chosen beside alpha: `site`, or `k`."""
    wish: float = 1.0
    origin: str = ""
    """Where a given direction was learned."""
    equal: tuple[float, float, Float[Tensor, " item"]] | str | None = None
    """Cost, alpha, and shift of each item at the cost at which all are compared, or why there is none; None for what has no alpha."""


@dataclass(frozen=True, eq=False)
class Found:
    """One concept at one checkpoint."""

    concept: Concept
    sides: Sides
    judged: tuple[Judged, ...]
    instruction: str
    prompt_shift: Float[Tensor, " item"]
    samples: tuple[Sample, ...]
    distinct: Mapping[str, float]
    """Share of different pairs of tokens in what each arm said."""
    passes: Passes
    neutral: str
    """Which texts counted as neutral."""
    tasks: Mapping[str, int] = field(default_factory=dict)
    """Questions that were left out of each task, being longer than the context."""


def evaluate(model: Model, ask: Asking, *, say: Callable[[str], None] = lambda _: None) -> Found:
    """Everything of one concept at one checkpoint."""
    plan, passes = ask.plan, Passes()
    texts, told = _neutral(model, ask)
    names = [m for m in ask.methods if isinstance(m, str)]
    others = [m for m in ask.methods if not isinstance(m, str)]
    where = checked_where(plan.where)
    recipes: list[Recipe] = [
        given(model, d, name="given" if i == 0 else f"given {i + 1}", where=where) for i, d in enumerate(others)
    ]
    say("reading")
    have = material(model, ask.concept, ask.sides, names, plan.sites, extra=[d.site for d in others])
    recipes = [recipe(have, name, ks=plan.ks, where=where) for name in names] + recipes
    tasks = [Task.of(model, name, rows, limit=plan.task_limit, seed=plan.seed) for name, rows in ask.tasks.items()]
    plain = {task.name: task.answered(model) for task in tasks}

    def cost(edits: Edits) -> Cost:
        return neutral_cost(model, texts, edits, batch=64)

    judged = []
    for one in recipes:
        say(f"choosing alpha of {one.method}")
        nulls = shuffled(have, one, samples=plan.shuffles, seed=plan.seed) if plan.shuffles else []
        judged.append(_judge(model, ask, one, nulls, cost, tasks, plain, passes, say))
    instruction = plan.instruction or default_instruction(ask)
    asked = Asked.of(model, ask.sides.test, cached=False, passes=passes)
    shift = prompted(asked, instruction)
    say("comparing at equal cost")
    judged = _at_equal_cost(model, ask, recipes, judged, cost, passes)
    say("speaking")
    samples = _samples(model, ask, judged) if plan.samples else []
    said = _distinct(model, samples)
    left = {task.name: task.left_out for task in tasks}
    return Found(ask.concept, ask.sides, tuple(judged), instruction, shift, tuple(samples), said, passes, told, left)


def _judge(
    model: Model,
    ask: Asking,
    one: Recipe,
    nulls: Sequence[Recipe],
    cost: Callable[[Edits], Cost],
    tasks: Sequence[Task],
    plain: Mapping[str, Answered],
    passes: Passes,
    say: Callable[[str], None],
) -> Judged:
    plan, wish = ask.plan, -1.0 if one.ablates else 1.0
    first = next(iter(one.shifts))
    cached = kept_prompts(one.edits(model, first, 1.0))
    development = Asked.of(model, ask.sides.development, cached=cached, passes=passes)
    grid = search(
        development,
        one,
        plan.alphas,
        lambda edits: cost(edits).divergence,
        most=plan.most,
        wish=wish,
    )
    asked = Asked.of(model, ask.sides.test, cached=cached, passes=passes)
    base = asked.scores()
    response = []
    for alpha in [a for a in ((1.0,) if one.ablates else checked_alphas(plan.alphas)) if a]:
        say(f"{one.method} at alpha {alpha:g} against {plan.controls} controls")
        response.append(
            against_nulls(
                asked, one, grid.chosen.choice, alpha, controls_=plan.controls, others=nulls, base=base.margin
            )
        )
    chosen = next(r for r in response if r.alpha == grid.chosen.alpha)
    edits = one.edits(model, grid.chosen.choice, grid.chosen.alpha)
    steered = asked.scores(edits)
    say(f"side effects of {one.method}")
    side = SideEffects(cost(edits), {t.name: (plain[t.name], t.answered(model, edits)) for t in tasks})
    return Judged(
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
    ask: Asking,
    recipes: Sequence[Recipe],
    judged: Sequence[Judged],
    cost: Callable[[Edits], Cost],
    passes: Passes,
) -> list[Judged]:
    """Vectors compared where each moves the model as far from itself."""
    target, made = ask.plan.equal_kl, []
    for one, old in zip(recipes, judged, strict=True):
        if one.ablates:
            made.append(old)
            continue
        sign, choice = math.copysign(1.0, old.grid.chosen.alpha), old.grid.chosen.choice

        def at(alpha: float, one: Recipe = one, choice: str = choice, sign: float = sign) -> float:
            return float(cost(one.edits(model, choice, sign * alpha)).divergence.mean())

        try:
            alpha = sign * alpha_at(at, target)
        except BadInput as fault:
            made.append(replace(old, equal=str(fault)))
            continue
        edits = one.edits(model, choice, alpha)
        asked = Asked.of(model, ask.sides.test, cached=kept_prompts(edits), passes=passes)
        shift = asked.scores(edits).margin - old.margins[0]
        made.append(replace(old, equal=(target, alpha, shift)))
    return made


def _samples(model: Model, ask: Asking, judged: Sequence[Judged]) -> list[Sample]:
    plan = ask.plan
    every = list(dict.fromkeys(item.prompt for item in ask.sides.test))
    prompts = [every[i * len(every) // plan.samples] for i in range(min(plan.samples, len(every)))]
    arms: list[tuple[str, float | None, Edits]] = [("unsteered", None, [])]
    for one in judged:
        arms.append((one.method, one.grid.chosen.alpha, one.edits))
        arms.append(
            (f"control of {one.method}", one.grid.chosen.alpha, [e.null(i) for i, e in enumerate(edits_of(one.edits))])
        )
    return side_by_side(model, prompts, arms, Decoding(plan.tokens))


def _distinct(model: Model, samples: Sequence[Sample]) -> dict[str, float]:
    found = {}
    for arm in dict.fromkeys(sample.arm for sample in samples):
        texts = [sample.text for sample in samples if sample.arm == arm]
        ids = model.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        found[arm] = distinct([torch.tensor(row, dtype=torch.long) for row in ids])
    return found


def _neutral(model: Model, ask: Asking) -> tuple[list[str], str]:
    """Texts of a length that counts, and which they are."""
    texts = list(ask.neutral) or [ask.concept.texts[i] for i in ask.sides.fit.tolist()]
    told = "texts that were given" if ask.neutral else "the concept's own texts, not neutral ones"
    sizes = [len(ids) for ids in model.tokenizer(texts, verbose=False)["input_ids"]]
    fit = [text for text, size in zip(texts, sizes, strict=True) if 2 <= size <= model.context]
    if not fit:
        raise BadInput(f"no neutral text has 2 to {model.context} tokens. Give others with --neutral.")
    return fit[:: max(1, len(fit) // NEUTRAL)][:NEUTRAL], told
