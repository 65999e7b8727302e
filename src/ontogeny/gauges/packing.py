"""One gauge of a pack, from a concept: three splits, both probes, calibration, the site of control, and its check on held-out questions."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.chats import chat_text
from ontogeny.data.concept import Concept
from ontogeny.data.positions import last
from ontogeny.errors import BadInput, unknown_name
from ontogeny.gauges.control_check import (
    ControlCheck,
    Questions,
    ReplyJudge,
    answer_questions,
    check_control,
    greedy_replies,
    judged_questions,
    mean_effect,
    reply_judge,
)
from ontogeny.gauges.control_vector import ControlVector, class_vector, usual_control_site
from ontogeny.gauges.fitting import FittedGauge, check_classes, fit_gauge
from ontogeny.gauges.gauge import Gauge
from ontogeny.gauges.labelled_chats import ClassAnswers, LabelledChats, class_answers, labelled_chats
from ontogeny.gauges.labels import GaugeLabel
from ontogeny.gauges.pack import PackedGauge
from ontogeny.gauges.three_splits import ThreeSplits, three_splits
from ontogeny.measurements.surface_baselines import audit_surface
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.statistics.calibration_maps import CALIBRATION_NAMES
from ontogeny.statistics.splits import Split

_T = TypeVar("_T")
_CHOOSE_QUESTIONS = 24
"""Questions of the choose split at which the site of control is chosen."""

Activity = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PackSettings:
    """Settings of a gauge pack; all of them enter the digest of its work."""

    suffix: str | None = None
    """Beginning of an answer after which the attribute is read; "" for the end of the instruction; None for a sentence with its name."""
    calibration: str = "auto"
    """temperature, platt or isotonic; auto for the best on the choose split."""
    control_site: str = ""
    """Where control acts, such as resid.3; "" for the site with the largest effect on the choose split."""
    gaps: float = 1.0
    """Length of a push, in distances of the class means."""
    controls: int = 99
    """Random directions of equal norm."""
    questions: int = 64
    """Most held-out questions."""
    tokens: int = 24
    """New tokens of a reply that is judged."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.calibration not in ("auto", *CALIBRATION_NAMES):
            raise unknown_name("calibration", self.calibration, ("auto", *CALIBRATION_NAMES))
        if not 0 < self.gaps <= 20:
            raise BadInput(f"`gaps` must be a number above 0, up to 20, got {self.gaps:g}: push by 1.")
        if not 0 <= self.controls <= 10_000:
            raise BadInput(f"`controls` must lie between 0 and 10,000, got {self.controls}: 99 is usual.")
        if self.questions < 1 or self.tokens < 1:
            raise BadInput(
                f"`questions` and `tokens` must be at least 1, got {self.questions} and {self.tokens}: raise the smaller one."
            )
        if not -(2**62) < self.seed < 2**62:
            raise BadInput(f"`seed` must have at most 18 digits, got {self.seed}: choose a smaller one.")
        if self.control_site and (site := Site.parse(self.control_site)).part != "resid":
            raise BadInput(f"`control_site` must be a site of the stream such as resid.3, got {site}: change it.")


def with_suffix(label: GaugeLabel, suffix: str | None) -> GaugeLabel:
    """The label with the begun answer after which the attribute is read; by default a sentence with its name."""
    words = re.sub(r"^(user|system)_", "", label.concept).replace("_", " ")
    who = "user" if label.subject == "user" else "conversation"
    default = label.suffix or f"I think the {words} of this {who} is"
    return replace(label, suffix=default if suffix is None else suffix.strip())


def make_packed_gauge(
    model: Model,
    concept: Concept,
    label: GaugeLabel,
    template: str,
    settings: PackSettings,
    *,
    stage: str = "",
    step: int | None = None,
    questions: Sequence[str] = (),
    unit: str = "",
    on_activity: Activity = lambda activity, done, total: None,
) -> PackedGauge:
    """Fit, calibrate and check one gauge.

    Args:
        label: From `with_suffix`.
        template: A chat template in Jinja.
        questions: Held-out user's turns in the place of the concept's own.
        on_activity: Called with what is done, and how much of it.

    Raises:
        BadInput: the concept does not have classes and conversations, or has too few groups for three splits.
    """
    on_activity(f"reading {concept.name}", 0, 1)
    chats = labelled_chats(model, concept, template, label.suffix)
    check_classes(concept.name, chats)
    splits = three_splits(concept.name, chats.y, chats.groups, chats.classes, seed=settings.seed)
    gauge = Gauge(label, stage, step, unit, "last", template, tokenizer_fingerprint(model))
    gauge = replace(gauge, floors=_surface_floor(concept, chats, splits))
    fitted = fit_gauge(model, gauge, chats, splits, calibration=settings.calibration, seed=settings.seed)
    asked = _Asked(model, concept, chats, splits, template, settings)
    on_activity(f"choosing the site of control of {concept.name}", 0, 1)
    at, chosen = _control_site(model, fitted, asked, settings)
    vectors, reading, reason = _vectors(fitted, at)
    if reason:
        check = ControlCheck("undecided", reason)
    else:
        check = check_control(
            model,
            asked.on_test(questions),
            vectors,
            reading,
            classes=label.classes,
            gaps=settings.gaps,
            controls=settings.controls,
            seed=settings.seed,
            on_push=lambda done, total: on_activity(f"pushing {concept.name}", done, total),
        )
    suffix_tokens, unknown = _unknown_tokens(model, label.suffix)
    return PackedGauge(
        fitted.gauge,
        fitted.sites[at],
        fitted.control.direction[at].float().nan_to_num(0.0),
        fitted.control.bias[at].float().nan_to_num(0.0),
        fitted.control.facts["gap"][at].float().nan_to_num(0.0).flatten(),
        check,
        splits.sizes(),
        fitted.calibration,
        {
            "scores": {name: asdict(one) for name, one in fitted.scores.items()},
            "auroc_by_site": {site: list(pair) for site, pair in fitted.by_site.items()},
            "cosine_by_site": dict(fitted.cosines),
            "cosine": fitted.cosines[str(fitted.sites[at])],
            "control_site_chosen_by": chosen,
            "brier_by_calibration": dict(fitted.brier),
            "reliability": [asdict(one) for one in fitted.reliability],
            "left_out": chats.left_out,
            "shortened": chats.shortened,
            "suffix_tokens": suffix_tokens,
            "suffix_unknown_tokens": unknown,
        },
        unit,
    )


class _Asked:
    """The questions of a concept on its splits: its own with typical answers, else its conversations under a judge of replies."""

    def __init__(
        self,
        model: Model,
        concept: Concept,
        chats: LabelledChats,
        splits: ThreeSplits,
        template: str,
        settings: PackSettings,
    ) -> None:
        self._model, self._chats, self._splits = model, chats, splits
        self._template, self._settings = template, settings
        names = {
            number: concept.examples[row].group for number, row in zip(chats.groups.tolist(), chats.rows, strict=True)
        }
        self._groups = {
            split: {names[number] for number in chats.groups[rows].tolist()} for split, rows in vars(splits).items()
        }
        self._answers = class_answers(model, concept, template)

    def on_choose(self) -> Questions:
        """Questions of the choose split."""
        return self._own("choose", _CHOOSE_QUESTIONS)

    def on_test(self, given: Sequence[str] = ()) -> Questions:
        """Questions of the test split, or given ones."""
        if not given:
            return self._own("test", self._settings.questions)
        words = list(dict.fromkeys(given))[: self._settings.questions]
        if self._answers:
            ((typical, _),) = Counter(question.answers for question in self._answers).most_common(1)
            return answer_questions(self._model, [ClassAnswers(text, typical, text) for text in words], self._template)
        groups = torch.arange(len(words))
        chats = [(("user", text),) for text in words]
        return judged_questions(self._model, chats, groups, self._judge, self._template, tokens=self._settings.tokens)

    def _own(self, split: str, most: int) -> Questions:
        if self._answers:
            own = [question for question in self._answers if question.group in self._groups[split]]
            return answer_questions(self._model, _spread(own, most), self._template)
        rows = _spread(getattr(self._splits, split).tolist(), most)
        chats = [self._chats.chats[row] for row in rows]
        return judged_questions(
            self._model, chats, self._chats.groups[rows], self._judge, self._template, tokens=self._settings.tokens
        )

    @cached_property
    def _judge(self) -> ReplyJudge:
        chats, splits, tokens = self._chats, self._splits, self._settings.tokens
        replies, source = list(chats.replies), "the assistant's turns in the dialogues of the choose split"
        if not all(replies):
            source = "the model's own replies to the users of the choose split"
            replies = greedy_replies(self._model, chats.chats, self._template, tokens=tokens)
        return reply_judge(
            [replies[i] for i in splits.choose.tolist()],
            chats.y[splits.choose],
            [replies[i] for i in splits.test.tolist()],
            chats.y[splits.test],
            chats.groups[splits.test],
            classes=chats.classes,
            source=source,
            seed=self._settings.seed,
        )


def _control_site(model: Model, fitted: FittedGauge, asked: _Asked, settings: PackSettings) -> tuple[int, str]:
    """Index of the site at which control acts, and how it was chosen.

    The embedding is left out, and so is the output of the last block, where a push is a constant in the logits.
    """
    sites = list(fitted.sites)
    if settings.control_site:
        wanted = Site.parse(settings.control_site)
        if wanted not in sites:
            raise BadInput(
                f"`control_site` must be resid.0 to resid.{len(sites) - 1} of this model, got {wanted}: change it."
            )
        return sites.index(wanted), "given"
    inner = [i for i in range(1, len(sites) - 1) if not _vectors(fitted, i)[2]] or [len(sites) - 1]
    questions = asked.on_choose()
    if questions.outcome is None:
        return sites.index(
            usual_control_site([sites[i] for i in inner])
        ), f"three quarters of the depth: {questions.reason}"
    base = questions.outcome([])
    effects = {i: mean_effect(questions, base, _vectors(fitted, i)[0], settings.gaps) for i in inner}
    return max(effects, key=lambda i: effects[i]), "the largest effect on questions of the choose split"


def _vectors(fitted: FittedGauge, at: int) -> tuple[list[ControlVector], list[Float[Tensor, " d"]], str]:
    """Control and reading vectors towards each class at a site, and why there are none."""
    direction, bias = fitted.control.direction[at].float(), fitted.control.bias[at].float()
    gap, weight = fitted.control.facts["gap"][at].float().flatten(), fitted.reading.direction[at].float()
    classes = len(fitted.gauge.label.classes)
    if not bool(torch.isfinite(direction).all()) or float(gap.min()) <= 0:
        return [], [], f"the class means coincide at {fitted.sites[at]}"
    vectors = [
        class_vector(
            fitted.gauge, c, fitted.sites[at], direction, bias, gap, origin=f"{fitted.gauge.label.concept}/mass_mean"
        )
        for c in range(classes)
    ]
    rows = [weight[:, c] if weight.shape[1] > 1 else weight[:, 0] * (1 if c == 1 else -1) for c in range(classes)]
    return vectors, [row.nan_to_num(0.0) for row in rows], ""


def _surface_floor(concept: Concept, chats: LabelledChats, splits: ThreeSplits) -> dict[str, float]:
    """AUROC on the test split of the words that the model reads, fitted on train and choose."""
    rows = [
        replace(concept.examples[row], text=chat_text(chat), span=None, chat=())
        for row, chat in zip(chats.rows, chats.chats, strict=True)
    ]
    try:
        read = replace(concept, examples=tuple(rows), answers=(), position=last, twins=False)
        split = Split(torch.cat([splits.train, splits.choose]).sort().values, splits.test)
        return {"surface_tfidf": audit_surface(read, split, samples=100).baselines["tfidf"].auroc}
    except BadInput:  # all conversations have the same words
        return {}


def _unknown_tokens(model: Model, suffix: str) -> tuple[int, int]:
    """Tokens of the begun answer, and how many of them the tokenizer does not know."""
    if not suffix:
        return 0, 0
    ids: list[int] = model.tokenizer(suffix, add_special_tokens=False)["input_ids"]
    return len(ids), sum(token == model.tokenizer.unk_token_id for token in ids)


def _spread(items: Sequence[_T], most: int) -> list[_T]:
    """Evenly spaced items, at most `most`."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]
