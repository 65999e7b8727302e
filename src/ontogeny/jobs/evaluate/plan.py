"""What is to be evaluated, and how: everything that can be checked before a model is loaded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ontogeny.data.concept import Concept
from ontogeny.direction import Direction
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.evaluate.contrast_items import (
    ContrastAim,
    ContrastItem,
    Splits,
    cap_items,
    contrast_items,
    split_items,
)
from ontogeny.jobs.evaluate.grid_search import MAX_NEUTRAL_KL, check_alphas
from ontogeny.plugins import list_plugins, load_plugin
from ontogeny.sites import expand_sites
from ontogeny.steering.token_selection import TOKEN_SELECTORS
from ontogeny.storage.files import content_digest
from ontogeny.tasks.datasets import MultipleChoiceQuestion

EVALUATION_VERSION = 2
"""Raised whenever the same input would give other numbers."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How a vector is evaluated."""

    alphas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    ks: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of heads that ITI tries."""
    sites: str = "resid"
    where: str = "last"
    controls: int = 200
    shuffles: int = 100
    """Fits on permuted labels."""
    most: float = MAX_NEUTRAL_KL
    """KL on neutral text, nats per token, up to which alpha may go."""
    equal_kl: float = 0.1
    """The same, at which vectors are compared."""
    aim: ContrastAim = "auto"
    before: str = "."
    instruction: str | None = None
    """Of the prompt-only baseline; None: made of the concept."""
    samples: int = 4
    """Prompts whose continuations are shown."""
    tokens: int = 20
    task_limit: int = 100
    limit: int = 100
    """Questions a side, at most, evenly spread."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_alphas(self.alphas)
        if self.where not in TOKEN_SELECTORS:
            raise unknown_name("set of tokens", self.where, TOKEN_SELECTORS)
        if self.controls < 1 or self.shuffles < 0:
            raise BadInput(f"{self.controls} controls show nothing. Take 200, at least 1.")
        if not (0 < self.most < math.inf and 0 < self.equal_kl < math.inf):
            raise BadInput(
                f"a KL to stay under or to compare at is a number above 0, not {self.most:g} and {self.equal_kl:g}. Try 0.5, 0.1."
            )
        if self.limit < 2:
            raise BadInput(f"a limit of {self.limit} questions leaves nothing to compare. Take 100, at least 2.")
        if not self.ks or min(self.ks) < 1:
            raise BadInput("the grid of K is empty. Try --k 1,2,4,8.")


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """What is evaluated at every checkpoint alike; checked before a model is loaded."""

    concept: Concept
    items: tuple[ContrastItem, ...]
    sides: Splits
    methods: tuple[str | Direction, ...]
    plan: EvaluationSettings
    neutral: tuple[str, ...] = ()
    """Texts that have nothing to do with the concept; none: the concept's own."""
    tasks: Mapping[str, Sequence[MultipleChoiceQuestion]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of everything that decides the numbers but the model."""
        told = [[m, ""] if isinstance(m, str) else [m.origin, m.vector.double().sum().item()] for m in self.methods]
        tasks = {name: [[q.prompt, q.options, q.gold] for q in questions] for name, questions in self.tasks.items()}
        return content_digest(
            [EVALUATION_VERSION, self.concept.name, self.concept.hash, told, asdict(self.plan), self.neutral, tasks]
        )


def make_plan(
    concept: Concept,
    methods: Sequence[str | Direction],
    plan: EvaluationSettings,
    *,
    neutral: Sequence[str] = (),
    tasks: Mapping[str, Sequence[MultipleChoiceQuestion]] | None = None,
) -> EvaluationPlan:
    """Everything that can be checked without a model.

    Raises:
        BadInput: no method, an unknown one, or a concept that cannot be divided.
    """
    if not methods:
        raise BadInput(
            f"`methods` is empty: name one or more of {', '.join(list_plugins('steering/methods'))}, or a direction."
        )
    for method in methods:
        if isinstance(method, str):
            load_plugin("steering/methods", method)
    items = contrast_items(concept, plan.aim, plan.before)
    sides = cap_items(split_items(concept, items, seed=plan.seed), plan.limit)
    return EvaluationPlan(concept, tuple(items), sides, tuple(methods), plan, tuple(neutral), tasks or {})


def default_instruction(ask: EvaluationPlan) -> str:
    """A sentence that asks for the concept: its question answered with yes, else two texts that show it."""
    if ask.plan.instruction:
        return ask.plan.instruction
    if ask.concept.question:
        return f"{ask.concept.question.strip()} Yes."
    shown = [ask.concept.examples[i] for i in ask.sides.fit.tolist()]
    texts = list(dict.fromkeys(e.text for e in shown if e.target))
    return " ".join(texts[:: max(1, len(texts) // 2)][:2])


def count_forward_passes(ask: EvaluationPlan, layers: int) -> int:
    """How many continuations are run at a checkpoint at most: grid, nulls and the alphas told."""
    plan = ask.plan
    tried = len([alpha for alpha in plan.alphas if alpha])
    total = 0
    for method in ask.methods:
        module = load_plugin("steering/methods", method) if isinstance(method, str) else None
        choices = 1 if module is None else len(plan.ks) if module.choice_axis == "k" else layers + 1
        alphas = 1 if module is not None and module.is_ablation else tried
        total += 2 * len(ask.sides.development) * choices * alphas
        total += 2 * len(ask.sides.test) * alphas * (1 + plan.controls + plan.shuffles)
    return total


def check_model_shape(ask: EvaluationPlan, *, layers: int, heads: int, width: int) -> None:
    """Refuse what a model of this shape cannot do, as its config.json tells, before its weights are read.

    Raises:
        BadInput: a site that is not there, more heads than there are, or a direction of another width.
    """
    parts = {load_plugin("steering/methods", method).part for method in ask.methods if isinstance(method, str)}
    if "resid" in parts:
        expand_sites(ask.plan.sites, layers=layers, heads=heads)
    if "head" in parts and max(ask.plan.ks) > layers * heads:
        raise BadInput(f"`ks` must be at most {layers * heads}, the heads of this model, got {max(ask.plan.ks)}.")
    for direction in (method for method in ask.methods if not isinstance(method, str)):
        expand_sites(str(direction.site), layers=layers, heads=heads)
        if direction.site.part == "resid" and len(direction.vector) != width:
            raise BadInput(
                f"{direction.origin} has {len(direction.vector)} dimensions, the stream of this model {width}. "
                "Take a direction of this model, or of another with this width."
            )
