"""Plan of an evaluation: concept, items, methods and settings, checked before a model is loaded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ontogeny.data.concept import Concept
from ontogeny.direction import Direction
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.evaluate.grid_search import MAX_NEUTRAL_KL, check_alphas
from ontogeny.plugins import list_plugins, load_plugin
from ontogeny.sites import expand_sites
from ontogeny.steering.token_selection import TOKEN_SELECTORS
from ontogeny.storage.files import content_digest
from ontogeny.tasks.contrast_items import (
    ContrastAim,
    ContrastItem,
    Splits,
    cap_items,
    contrast_items,
    split_items,
)
from ontogeny.tasks.datasets import MultipleChoiceQuestion

EVALUATION_VERSION = 2
"""Increased whenever the same input would give other numbers."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How vectors are evaluated; decides the numbers.

    Args:
        alphas: Multiples of a vector that are tried; 0 is the unsteered model.
        ks: Numbers of heads that ITI tries.
        where: Tokens that are edited: last, generated, prompt or all.
        controls: Random directions of equal norm, at every alpha.
        shuffles: Fits on permuted labels, at every alpha.
        most: Maximum KL on neutral text of the chosen alpha, in nats per token.
        equal_kl: KL at which vectors are compared with each other, in nats per token.
        before: Text put in front of pairs that differ in their first word.
        instruction: Prompt of the prompt-only baseline; None: made from the concept.
        samples: Number of test prompts whose continuations are kept, of `tokens` new tokens each.
        task_limit: Maximum number of questions of a task.
        limit: Maximum number of questions on which alpha is chosen, and on which effects are measured.
    """

    alphas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    ks: tuple[int, ...] = (1, 2, 4, 8)
    sites: str = "resid"
    where: str = "last"
    controls: int = 200
    shuffles: int = 100
    most: float = MAX_NEUTRAL_KL
    equal_kl: float = 0.1
    aim: ContrastAim = "auto"
    before: str = "."
    instruction: str | None = None
    samples: int = 4
    tokens: int = 20
    task_limit: int = 100
    limit: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_alphas(self.alphas)
        if self.where not in TOKEN_SELECTORS:
            raise unknown_name("set of tokens", self.where, TOKEN_SELECTORS)
        minima = {"controls": (self.controls, 1), "shuffles": (self.shuffles, 0), "limit": (self.limit, 2)}
        for name, (value, least) in minima.items():
            if value < least:
                raise BadInput(f"`{name}` must be at least {least}, got {value}: take 100.")
        for name, kl in (("most", self.most), ("equal_kl", self.equal_kl)):
            if not 0 < kl < math.inf:
                raise BadInput(f"`{name}` must be above 0 nats per token, got {kl:g}: take 0.1.")
        if not self.ks or min(self.ks) < 1:
            raise BadInput(f"`ks` must be numbers from 1, got {self.ks}: take 1,2,4,8.")


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """One concept, evaluated in the same way at every checkpoint."""

    concept: Concept
    items: tuple[ContrastItem, ...]
    splits: Splits
    methods: tuple[str | Direction, ...]
    """Names of steering methods, or directions."""
    settings: EvaluationSettings
    neutral: tuple[str, ...] = ()
    """Texts without the concept; by default the concept's own texts."""
    tasks: Mapping[str, Sequence[MultipleChoiceQuestion]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Digest of everything but the model that decides the numbers."""
        methods = [[m, ""] if isinstance(m, str) else [m.origin, m.vector.double().sum().item()] for m in self.methods]
        tasks = {name: [[q.prompt, q.options, q.gold] for q in questions] for name, questions in self.tasks.items()}
        # Earlier versions asked and continued the prompts of a concept in a template without it.
        asked = ["asked in template"] if self.concept.template else []
        concept = [self.concept.name, self.concept.hash, *asked]
        return content_digest([EVALUATION_VERSION, *concept, methods, asdict(self.settings), self.neutral, tasks])

    def describe(self) -> dict[str, Any]:
        """The plan as run.json lists it."""
        methods = [method if isinstance(method, str) else method.origin for method in self.methods]
        beside = {"neutral_texts": len(self.neutral), "tasks": sorted(self.tasks)}
        return {"methods": methods, **asdict(self.settings), **beside}


def plan_evaluation(
    concept: Concept,
    methods: Sequence[str | Direction],
    settings: EvaluationSettings,
    *,
    neutral: Sequence[str] = (),
    tasks: Mapping[str, Sequence[MultipleChoiceQuestion]] | None = None,
) -> EvaluationPlan:
    """Check everything that can be checked before a model is loaded.

    Raises:
        BadInput: there is no method, a method is unknown, or the concept cannot be split.
    """
    if not methods:
        raise BadInput(
            f"`methods` must not be empty: name one or more of {', '.join(list_plugins('steering/methods'))}, or a direction."
        )
    for method in methods:
        if isinstance(method, str):
            load_plugin("steering/methods", method)
    items = contrast_items(concept, settings.aim, settings.before)
    splits = cap_items(split_items(concept, items, seed=settings.seed), settings.limit)
    return EvaluationPlan(concept, tuple(items), splits, tuple(methods), settings, tuple(neutral), tasks or {})


def default_instruction(plan: EvaluationPlan) -> str:
    """The prompt-only baseline: the given instruction, else the concept's question answered with yes, else two texts that show it."""
    concept = plan.concept
    if plan.settings.instruction:
        return plan.settings.instruction
    if concept.question:
        return f"{concept.question.strip()} Yes."
    examples = [concept.examples[i] for i in plan.splits.fit.tolist()]
    texts = list(dict.fromkeys(e.text for e in examples if e.target))
    return " ".join(texts[:: max(1, len(texts) // 2)][:2])


def count_forward_passes(plan: EvaluationPlan, layers: int, *, has_siblings: bool = False) -> int:
    """Maximum number of continuations run at one checkpoint: grid, nulls, and the effect at every alpha.

    Args:
        has_siblings: Whether the effect at equal KL gets nulls as well.
    """
    settings, splits, total = plan.settings, plan.splits, 0
    for method in plan.methods:
        module = load_plugin("steering/methods", method) if isinstance(method, str) else None
        choices = 1 if module is None else len(settings.ks) if module.choice_axis == "k" else layers + 1
        alphas = 1 if module is not None and module.is_ablation else sum(alpha != 0 for alpha in settings.alphas)
        total += 2 * len(splits.development) * choices * alphas
        total += 2 * len(splits.test) * alphas * (1 + settings.controls + settings.shuffles)
        if has_siblings and not (module is not None and module.is_ablation):
            total += 2 * len(splits.test) * (1 + settings.controls)
    return total


def count_effects(plan: EvaluationPlan) -> int:
    """Number of effects at one checkpoint that get a p-value; those of all checkpoints and concepts are corrected together."""
    alphas = sum(alpha != 0 for alpha in plan.settings.alphas)
    return sum(
        1 if isinstance(method, str) and load_plugin("steering/methods", method).is_ablation else alphas
        for method in plan.methods
    )


def check_model_shape(plan: EvaluationPlan, *, layers: int, heads: int, width: int) -> None:
    """Check the plan against the shape of a model, before its weights are read.

    Raises:
        BadInput: a site does not exist, `ks` exceeds the number of heads, or a direction has another width.
    """
    settings = plan.settings
    parts = {load_plugin("steering/methods", method).part for method in plan.methods if isinstance(method, str)}
    if "resid" in parts:
        expand_sites(settings.sites, layers=layers, heads=heads)
    if "head" in parts and max(settings.ks) > layers * heads:
        raise BadInput(f"`ks` must be at most {layers * heads}, the heads of this model, got {max(settings.ks)}.")
    for direction in (method for method in plan.methods if not isinstance(method, str)):
        expand_sites(str(direction.site), layers=layers, heads=heads)
        if direction.site.part == "resid" and len(direction.vector) != width:
            raise BadInput(
                f"{direction.origin} must have {width} dimensions, the width of this model, got {len(direction.vector)}: take a "
                "direction of this model, or of another one of this width."
            )
