"""Study: can a capability be elicited, or read from the states, before the model shows it? (arXiv:2406.19370, for language models)

Questions are asked plainly, behind worked examples, and read from the stream: the difference of the states behind the right and the wrong
answer, learned on one half of the groups and tested on the other. Worked examples with wrong answers and shuffled labels are the nulls.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.jobs.compare.rows import StageRowBuilder, interval_ends
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights, mean_samples, share_interval
from ontogeny.statistics.nulls import null_interval
from ontogeny.statistics.splits import number_groups
from ontogeny.steering.log_likelihood import token_log_likelihoods, tokenize_answers

TITLE = "Elicitation"
INPUTS = ("questions",)
_FOLDS = 2


@dataclass(frozen=True)
class ElicitationSettings:
    shots: int = 4
    """Worked examples before a question, of other groups; fewer where the context is too short."""
    questions: int = 200
    draws: int = 100
    """Shufflings of right and wrong, the null of what is readable."""
    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"shots": 1, "questions": 4, "draws": 2, "samples": 2}.items():
            if getattr(self, name) < least:
                raise BadInput(f"`{name}` must be at least {least}, got {getattr(self, name)}: raise it.")


def settings(inputs: StudyInputs) -> ElicitationSettings:
    """Default settings with the comparison's seed."""
    return ElicitationSettings(seed=inputs.seed)


def cost(inputs: StudyInputs, sizes: StageSizes) -> float:
    """Estimated tokens that pass through the models."""
    plan = ElicitationSettings()
    asked = text_tokens([q.prompt + q.right for q in inputs.questions[: plan.questions]])
    return sizes.stages * asked * (4 + 4 * (1 + plan.shots))


def run(stages: Mapping[str, Model], inputs: StudyInputs, settings: ElicitationSettings) -> Iterator[Record]:
    """Rows of each stage: right answers plainly, behind worked examples, and as read from the stream, with paired differences.

    Raises:
        BadInput: too few questions, or one with equal answers.
    """
    questions = inputs.questions[: settings.questions]
    groups = number_groups(q.group for q in questions)
    if len(groups) < 4 or int(groups.max()) < 3:
        raise BadInput(f"elicitation needs questions of at least four groups, got {len(groups)} questions: add some.")
    if equal := [q for q in questions if q.right == q.wrong]:
        raise BadInput(
            f"a question must have two different answers, got {equal[0].right!r} twice for {equal[0].prompt[:60]!r}: correct it."
        )
    weights = group_weights(groups, samples=settings.samples, seed=settings.seed).double()
    examples = worked_examples(questions, groups, settings)
    table = StageRowBuilder("questions", "last", "elicitation", settings.seed, "test")
    count = int(groups.max()) + 1
    for stage in stages:
        model = stages[stage]
        plain = answered(model, [q.prompt for q in questions], questions)
        asked = {
            None: _with_examples(model, questions, examples, "right"),
            "wrong_examples": _with_examples(model, questions, examples, "wrong"),
        }
        read, null, layers = readable(model, questions, groups, settings)
        hits: dict[tuple[str, str | None], Tensor | str] = {("shown_accuracy", None): plain}
        for control, prompts in asked.items():
            hits["few_shot_accuracy", control] = answered(model, prompts, questions) if prompts else _TOO_SHORT
        hits["readable_accuracy", None] = read
        for (metric, control), values in hits.items():
            gain = metric.replace("accuracy", "gain")
            if isinstance(values, str):
                for name in (metric, gain):
                    yield table.row(name, math.nan, stage, n=0, control=control, reason=values)
                continue
            point = values.mean()
            ends = share_interval(point, mean_samples(values[None], weights)[:, 0], groups=count).ends
            note = f"read after {', '.join(layers)}" if metric == "readable_accuracy" else None
            yield table.row(metric, float(point), stage, n=len(values), ends=ends, control=control, note=note)
            if metric != "shown_accuracy":
                change = values - plain
                ends = interval_ends(float(change.mean()), mean_samples(change[None], weights)[:, 0], groups=count)
                yield table.row(gain, float(change.mean()), stage, n=len(change), ends=ends, control=control)
        yield table.row(
            "readable_accuracy",
            float(null.mean()),
            stage,
            n=len(null),
            ends=null_interval(null),
            control="shuffled_label",
            note="right and wrong exchanged by group at random; low to high: 95 % of them",
        )


_TOO_SHORT = "no worked example fits into the context beside a question"


def worked_examples(
    questions: Sequence[Answer], groups: Int[Tensor, " question"], settings: ElicitationSettings
) -> list[list[int]]:
    """For each question the numbers of its worked examples, all of other groups; the same for all stages."""
    generator = random.Random(settings.seed)
    member = groups.tolist()
    chosen = []
    for own in member:
        others = [i for i, group in enumerate(member) if group != own]
        chosen.append(generator.sample(others, min(settings.shots, len(others))))
    return chosen


def _with_examples(
    model: Model, questions: Sequence[Answer], examples: Sequence[Sequence[int]], side: str
) -> list[str]:
    """Prompts behind their examples, as many as fit beside every question; empty if none does."""
    for shots in range(max(map(len, examples)), 0, -1):
        prompts = [
            "".join(f"{questions[i].prompt}{getattr(questions[i], side)}\n" for i in chosen[:shots]) + question.prompt
            for question, chosen in zip(questions, examples, strict=True)
        ]
        pairs = [(p, a) for p, q in zip(prompts, questions, strict=True) for a in (q.right, q.wrong)]
        if max(len(answer.ids) for answer in tokenize_answers(model, pairs, check_context=False)) <= model.context:
            return prompts
    return []


def answered(model: Model, prompts: Sequence[str], questions: Sequence[Answer]) -> Float[Tensor, " question"]:
    """1 where the right answer is likelier than the wrong one after the prompt, ½ for a tie."""
    pairs = [(prompt, answer) for prompt, q in zip(prompts, questions, strict=True) for answer in (q.right, q.wrong)]
    scores = [float(of.double().sum()) for of in token_log_likelihoods(model, tokenize_answers(model, pairs))]
    right, wrong = (torch.tensor(scores[side::2], dtype=torch.float64) for side in (0, 1))
    return ((right > wrong).double() + (right >= wrong).double()) / 2


def readable(
    model: Model, questions: Sequence[Answer], groups: Int[Tensor, " question"], settings: ElicitationSettings
) -> tuple[Float[Tensor, " question"], Float[Tensor, " draw"], list[str]]:
    """Right choices of a direction in the stream, cross-fitted over two halves of the groups; the mean under shuffled labels; the layers.

    The direction is the mean difference of the states at the full stop behind the right and the wrong answer, where the statement is
    complete; its layer is chosen inside the half that it is learned on.
    """
    closing = _full_stop(model, questions[0])
    pairs = [(q.prompt, f"{answer}{closing}") for q in questions for answer in (q.right, q.wrong)]
    sites = [Site("resid", layer) for layer in range(1, model.layers + 1)]
    rows = [answer.ids for answer in tokenize_answers(model, pairs)]
    states = activations_at_token(model, rows, [-1] * len(rows), sites).double()
    differences = states[:, ::2] - states[:, 1::2]
    fold = _halves(groups, settings.seed)
    hits, layers = _cross_fitted(differences, groups, fold, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    null = []
    for _ in range(settings.draws):
        sign = (2.0 * torch.randint(2, (int(groups.max()) + 1,), generator=generator) - 1).double()[groups]
        null.append(_cross_fitted(differences * sign[None, :, None], groups, fold, settings.seed)[0].mean())
    return hits, torch.stack(null), [str(sites[layer]) for layer in dict.fromkeys(layers)]


def _full_stop(model: Model, question: Answer) -> str:
    """A full stop as the tokenizer knows it: tokenizers of whole words need a space before it."""
    (answer,) = tokenize_answers(model, [(question.prompt, f"{question.right}.")], check_context=False)
    return " ." if model.tokenizer.unk_token_id in answer.ids.tolist() else "."


def _halves(groups: Int[Tensor, " question"], seed: int) -> Int[Tensor, " question"]:
    order = torch.randperm(int(groups.max()) + 1, generator=torch.Generator().manual_seed(seed))
    return (order % _FOLDS)[groups]


def _cross_fitted(
    differences: Float[Tensor, "layer question d"],
    groups: Int[Tensor, " question"],
    fold: Int[Tensor, " question"],
    seed: int,
) -> tuple[Float[Tensor, " question"], list[int]]:
    hits, layers = torch.empty(len(groups), dtype=torch.float64), []
    inner = _halves(groups, seed + 1)
    for number in range(_FOLDS):
        test, train = fold == number, fold != number
        scores = torch.zeros(len(differences), dtype=torch.float64)
        for half in range(_FOLDS):
            fitted, held = train & (inner != half), train & (inner == half)
            if fitted.any() and held.any():
                scores += _right(differences, fitted, held).sum(1)
        layer = int(scores.argmax())
        layers.append(layer)
        hits[test] = _right(differences[layer : layer + 1], train, test)[0]
    return hits, layers


def _right(
    differences: Float[Tensor, "layer question d"], fitted: Tensor, held: Tensor
) -> Float[Tensor, "layer question"]:
    """1 where a held-out difference points along the mean of the fitted ones, ½ where it is orthogonal."""
    along = (differences[:, held] * differences[:, fitted].mean(1, keepdim=True)).sum(-1)
    return ((along > 0).double() + (along >= 0).double()) / 2
