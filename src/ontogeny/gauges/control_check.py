"""Check of a control vector on held-out questions: pushes towards each class, against random directions of equal norm.

The outcome of a question is, for each class, how much likelier its typical answer is than the others, in nats; without answers, the
log-odds that a bag-of-words judge gives a reply. The judge is fitted on replies of the choose split and never sees an activation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.templates import Template
from ontogeny.data.tokenization import encode_texts
from ontogeny.gauges.control_vector import ControlVector
from ontogeny.gauges.conversation import encode_chats
from ontogeny.gauges.labelled_chats import ClassAnswers
from ontogeny.gauges.pin import Pin
from ontogeny.interventions import Add
from ontogeny.measurements.scores import held_out_scores
from ontogeny.models.model import Model
from ontogeny.statistics.bootstrap import group_weights, mean_samples, percentile_interval
from ontogeny.statistics.holm import holm_p
from ontogeny.statistics.nulls import null_interval, null_p_value
from ontogeny.statistics.splits import number_groups
from ontogeny.statistics.unique import unique_values
from ontogeny.steering.generate import DecodingConfig, continuation_text, continue_ids
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers
from ontogeny.steering.side_effects import measure_side_effects
from ontogeny.steering.steer import Edit
from ontogeny.steering.text_scorers import fit_text_classifier

SIGNIFICANT = 0.05
LEAST_QUESTION_GROUPS = 5
_FARTHEST_SHARE = 1e-4

Outcome = Callable[[Sequence[Edit]], Float[Tensor, "question c"]]
"""The outcome of every question for every class under edits."""


@dataclass(frozen=True, eq=False)
class Questions:
    """Held-out questions with the way in which answers are judged; without an outcome, `reason` says why it is missing."""

    outcome: Outcome | None
    texts: tuple[str, ...]
    """The user's words, on which the cost is measured."""
    groups: Int[Tensor, " question"]
    judge: str
    """In words."""
    judge_auroc: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    """Of a bag-of-words judge on replies of the test split: low, value, high."""
    reason: str = ""


@dataclass(frozen=True)
class ClassEffect:
    """The push towards one class."""

    towards: int
    gap: float
    """Length of the push, in units of the activations."""
    effect: float
    """Mean change of the outcome for the class, minus that of random directions."""
    low: float
    high: float
    """95 % interval over groups of questions."""
    pushed: float
    """Mean change of the outcome, without the null."""
    random: float
    random_low: float
    random_high: float
    """Mean, 2.5 and 97.5 % quantile over random directions of equal norm."""
    p: float
    """Against random directions, Holm over the classes."""
    reading_effect: float
    """The same along the reading probe's vector at the site, minus the null."""
    kl: float
    """Cost on the questions, nats per token."""
    random_kl: float
    """That of random directions."""


@dataclass(frozen=True)
class ControlCheck:
    """The verdict on a control vector."""

    verdict: str
    """`steers`, `does not steer` or `undecided`."""
    reason: str
    questions: int = 0
    groups: int = 0
    controls: int = 0
    judge: str = ""
    judge_auroc: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    effects: tuple[ClassEffect, ...] = field(default_factory=tuple)


def answer_questions(model: Model, questions: Sequence[ClassAnswers], template: Template) -> Questions:
    """Questions whose outcome is the log-likelihood of typical answers."""
    pairs = [(question.question, text) for question in questions for text in question.answers]
    groups = number_groups(question.group for question in questions)
    texts = tuple(question.question for question in questions)
    if len(unique_values(groups)) < LEAST_QUESTION_GROUPS:
        return Questions(None, texts, groups, "", reason=_few_groups(groups))
    answers, classes = tokenize_answers(model, pairs, template=template), len(questions[0].answers)

    def outcome(edits: Sequence[Edit]) -> Float[Tensor, "question c"]:
        each = log_likelihoods(token_log_likelihoods(model, answers, list(edits))).view(-1, classes)
        others = (each.sum(1, keepdim=True) - each) / (classes - 1)
        return each - others

    return Questions(outcome, texts, groups, "log-likelihood of the answer that is typical of each class, nats")


def judged_questions(
    model: Model,
    chats: Sequence[Chat],
    groups: Int[Tensor, " question"],
    judge: "ReplyJudge",
    template: Template,
    *,
    tokens: int,
) -> Questions:
    """Questions whose outcome is what a judge says of the greedy reply."""
    texts = tuple(chat[-1][1] for chat in chats)
    if judge.reason:
        return Questions(None, texts, groups, judge.name, judge.auroc, judge.reason)
    if len(unique_values(groups)) < LEAST_QUESTION_GROUPS:
        return Questions(None, texts, groups, judge.name, judge.auroc, _few_groups(groups))

    def outcome(edits: Sequence[Edit]) -> Float[Tensor, "question c"]:
        return judge.log_odds(greedy_replies(model, chats, template, edits, tokens=tokens))

    return Questions(outcome, texts, groups, judge.name, judge.auroc)


def _few_groups(groups: Tensor) -> str:
    count = len(unique_values(groups))
    return f"{count} groups of held-out questions, fewer than {LEAST_QUESTION_GROUPS}"


def greedy_replies(
    model: Model, chats: Sequence[Chat], template: Template, edits: Sequence[Edit] = (), *, tokens: int
) -> list[str]:
    """The greedy reply to each conversation; it ends with the context at the latest."""
    prompts = [encoding.ids for encoding in encode_chats(model, chats, template)]
    room = min(model.context - len(prompt) for prompt in prompts)
    how = DecodingConfig(tokens=max(1, min(tokens, room)))
    rows = continue_ids(model, prompts, list(edits), how)
    return [continuation_text(model, prompt, ids).strip() for prompt, (ids,) in zip(prompts, rows, strict=True)]


@dataclass(frozen=True, eq=False)
class ReplyJudge:
    """A bag-of-words classifier of replies; `reason` says why it cannot judge."""

    name: str
    log_odds: Callable[[Sequence[str]], Float[Tensor, "text c"]]
    auroc: tuple[float, float, float]
    """On replies of the test split: low, value, high."""
    reason: str = ""


def reply_judge(
    replies: Sequence[str],
    y: Int[Tensor, " reply"],
    test_replies: Sequence[str],
    test_y: Int[Tensor, " reply"],
    test_groups: Int[Tensor, " reply"],
    *,
    classes: int,
    source: str,
    seed: int = 0,
) -> ReplyJudge:
    """TF-IDF of the words and logistic regression, fitted on the replies of the choose split and tried on those of the test split.

    Args:
        source: Whose replies they are, in words.
    """
    name, unknown = f"bag of words, fitted on {source}", (math.nan, math.nan, math.nan)

    def nothing(texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), classes)

    if len(set(replies)) < 2:
        return ReplyJudge(name, nothing, unknown, "all replies are alike, so that no judge can tell the classes")
    judge = fit_text_classifier(replies, y.numpy(), words=1, seed=seed)

    def log_odds(texts: Sequence[str]) -> Tensor:
        shares = torch.from_numpy(judge.predict_proba(list(texts))).clamp(_FARTHEST_SHARE, 1 - _FARTHEST_SHARE)
        return shares.logit()

    scores = log_odds(test_replies).float()
    target = test_y.bool() if classes == 2 else test_y
    tested = held_out_scores(
        "auroc",
        scores[None, :, 1:] if classes == 2 else scores[None],
        target,
        group_weights(test_groups, seed=seed),
        len(unique_values(test_groups)),
    )
    low, high = tested.interval[0].ends
    auroc = (low, float(tested.value[0]), high)
    reason = (
        "" if low > 0.5 else f"replies do not show the class: the judge's AUROC on held-out replies is {auroc[1]:.2f}"
    )
    return ReplyJudge(name, log_odds, auroc, reason)


def mean_effect(questions: Questions, base: Tensor, vectors: Sequence[ControlVector], gaps: float) -> float:
    """The mean change of the outcomes over the classes, each under the push towards itself."""
    assert questions.outcome is not None
    changes = [
        float((questions.outcome([vector.edit(Pin("", c, gaps=gaps))]) - base)[:, c].mean())
        for c, vector in enumerate(vectors)
    ]
    return sum(changes) / len(changes)


def check_control(
    model: Model,
    questions: Questions,
    vectors: Sequence[ControlVector],
    reading: Sequence[Float[Tensor, " d"]],
    *,
    classes: Sequence[str],
    gaps: float = 1.0,
    controls: int = 99,
    seed: int = 0,
    on_push: Callable[[int, int], None] = lambda done, total: None,
) -> ControlCheck:
    """Push along the control vector, the reading vector and random directions, and say whether the control vector steers.

    Args:
        vectors: Towards each class.
        reading: The reading probe's vector towards each class at the same site, of any length.
        classes: Their names.
        gaps: Length of each push, in distances of the class means.
        controls: Random directions of equal norm.
        on_push: Called with the number of pushes done and in all.
    """
    count, groups = len(questions.texts), len(unique_values(questions.groups))
    if questions.outcome is None:
        return ControlCheck("undecided", questions.reason, count, groups, 0, questions.judge, questions.judge_auroc)
    base = questions.outcome([])
    norms = sorted({round(vector.gap, 6) for vector in vectors})
    total, done = len(norms) * controls + 2 * len(vectors), 0

    def change(edit: Edit) -> Float[Tensor, "question c"]:
        nonlocal done
        assert questions.outcome is not None
        moved = (questions.outcome([edit]) - base).double()
        done += 1
        on_push(done, total)
        return moved

    nulls: Mapping[float, Tensor] = {
        norm: torch.stack([change(edit) for edit in _random_edits(vectors, norm, gaps, controls, seed)])
        for norm in norms
        if controls
    }
    weights = group_weights(questions.groups, seed=seed)
    effects, p = list[ClassEffect](), list[float]()
    for c, vector in enumerate(vectors):
        edit = vector.edit(Pin("", c, gaps=gaps))
        own = change(edit)[:, c]
        along = change(_along(vector, reading[c], gaps))[:, c]
        null = nulls.get(round(vector.gap, 6), torch.zeros(1, *base.shape, dtype=torch.float64))[:, :, c]
        excess = own - null.mean(0)
        interval = percentile_interval(excess.mean(), mean_samples(excess[None], weights)[:, 0], groups=groups)
        ends = null_interval(null.mean(1))
        p.append(null_p_value(float(own.mean()), null.mean(1)) if controls else math.nan)
        twins = _random_edits(vectors, round(vector.gap, 6), gaps, min(controls, 3), seed)
        costs = [_cost(model, questions.texts, twin) for twin in twins]
        effects.append(
            ClassEffect(
                c,
                gaps * vector.gap,
                float(excess.mean()),
                *interval.ends,
                float(own.mean()),
                float(null.mean()),
                *ends,
                p[-1],
                float((along - null.mean(0)).mean()),
                _cost(model, questions.texts, edit),
                sum(costs) / len(costs) if costs else math.nan,
            )
        )
    corrected = holm_p(torch.tensor(p, dtype=torch.float64)).tolist()
    effects = [replace(one, p=own_p) for one, own_p in zip(effects, corrected, strict=True)]
    verdict, reason = _verdict(effects, controls, classes)
    return ControlCheck(
        verdict,
        reason,
        count,
        groups,
        controls,
        questions.judge,
        questions.judge_auroc,
        tuple(effects),
    )


def _verdict(effects: Sequence[ClassEffect], controls: int, classes: Sequence[str]) -> tuple[str, str]:
    """It steers if each class is pushed further than by random directions; it does not if no push leaves their range."""
    if (controls + 1) * SIGNIFICANT < len(effects):
        return "undecided", f"{controls} random directions are too few for {len(effects)} classes"
    clear = [one.low > 0 and one.p <= SIGNIFICANT and one.pushed > one.random_high for one in effects]
    if all(clear):
        return "steers", ""
    against = [one.high < 0 for one in effects]
    if all(one.random + one.high <= one.random_high for one in effects):
        return "does not steer", "no push goes beyond the range of random directions of equal norm"
    if any(against):
        return "does not steer", f"the push towards {classes[against.index(True)]} moves answers the other way"
    return "undecided", f"the push towards {classes[clear.index(False)]} cannot be distinguished from random directions"


def _random_edits(vectors: Sequence[ControlVector], norm: float, gaps: float, controls: int, seed: int) -> list[Edit]:
    """Pushes of one length along random directions, which all classes of this length share."""
    vector = next(one for one in vectors if round(one.gap, 6) == norm)
    edit = vector.edit(Pin("", 0, gaps=gaps))
    return [edit.null(1000 * (seed + 1) + i) for i in range(controls)]


def _along(vector: ControlVector, weight: Float[Tensor, " d"], gaps: float) -> Edit:
    """A push of the same length along another vector at the same site."""
    unit = weight.float() / weight.float().norm().clamp(min=1e-12)
    return Edit(vector.direction.site, Add(unit, gaps * vector.gap), "last")


def _cost(model: Model, texts: Sequence[str], edit: Edit) -> float:
    """KL from the unsteered model on the questions, nats per token; NaN if all of them are too short or too long."""
    rows = encode_texts(model.tokenizer, texts, [None] * len(texts))
    fitting = [text for text, row in zip(texts, rows, strict=True) if 2 <= len(row.ids) <= model.context]
    if not fitting:
        return math.nan
    return float(measure_side_effects(model, fitting, [edit]).divergence.mean())
