"""One attribute at one checkpoint: reading probe and control vector of `gauges`, on the test split, and answers under pushes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny import plugins
from ontogeny.activations.activations import activations_at_token
from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding
from ontogeny.direction import random_unit_vector
from ontogeny.gauges.control_check import Questions, ReplyJudge, judged_questions, reply_judge
from ontogeny.gauges.conversation import encode_all_with_suffix
from ontogeny.gauges.fitting import FittedGauge, fit_gauge
from ontogeny.gauges.gauge import Gauge
from ontogeny.gauges.labelled_chats import LabelledChats, labelled_chats
from ontogeny.gauges.three_splits import ThreeSplits, three_splits
from ontogeny.interventions import Add
from ontogeny.measurements.scores import score
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.probes import Probe
from ontogeny.steering.steer import Edit
from ontogeny.studies.user_model._chats import LabelledAttribute
from ontogeny.studies.user_model._settings import Settings

Vectors = Float[Tensor, "site d c"]
"""A vector towards each class at every site."""


@dataclass(frozen=True, eq=False)
class AttributeData:
    """Dialogues of an attribute as tokens, their splits, and the judge of answers; equal for all checkpoints."""

    attribute: LabelledAttribute
    chats: LabelledChats
    splits: ThreeSplits
    judge: ReplyJudge
    turns: tuple[tuple[list[Encoding], Int[Tensor, " dialogue"]], ...]
    """Dialogues up to each of the user's turns, with the begun answer, and their classes."""

    @property
    def target(self) -> Tensor:
        return self.chats.y.bool() if self.chats.classes == 2 else self.chats.y


def attribute_data(model: Model, attribute: LabelledAttribute, settings: Settings, seed: int) -> AttributeData:
    """Encode the dialogues of an attribute.

    Args:
        model: Any checkpoint.
    """
    chats = labelled_chats(model, attribute.concept, True, attribute.label.suffix)
    splits = three_splits(attribute.name, chats.y, chats.groups, chats.classes, seed=seed)
    judge = _reply_judge(attribute, chats, splits, seed)
    long = attribute.long or tuple((chats.chats[i], int(chats.y[i])) for i in splits.test.tolist())
    turns = []
    for turn in range(settings.turns):
        own = [(chat[: 2 * turn + 1], y) for chat, y in long if len(chat) > 2 * turn]
        read = encode_all_with_suffix(model, [chat for chat, _ in own], attribute.label.suffix, True) if own else []
        fitting = [i for i, encoding in enumerate(read) if len(encoding.ids) <= model.context]
        turns.append(([read[i] for i in fitting], torch.tensor([own[i][1] for i in fitting], dtype=torch.long)))
    return AttributeData(attribute, chats, splits, judge, tuple(turns))


def _reply_judge(attribute: LabelledAttribute, chats: LabelledChats, splits: ThreeSplits, seed: int) -> ReplyJudge:
    """A classifier of the assistant's turns in dialogues that no probe is fitted on."""
    texts = [" ".join(text for role, text in chat if role == "assistant") for chat, _ in attribute.judged]
    y, groups, half = torch.tensor([y for _, y in attribute.judged]), torch.arange(len(texts)), len(texts) // 2
    fit, test = slice(0, half), slice(half, None)
    if not texts:
        texts, y, groups = list(chats.replies), chats.y, chats.groups
        fit, test = splits.choose, splits.test  # type: ignore[assignment]
    chosen, tried = (torch.arange(len(texts))[rows].tolist() for rows in (fit, test))
    return reply_judge(
        [texts[i] for i in chosen],
        y[chosen],
        [texts[i] for i in tried],
        y[tried],
        groups[tried],
        classes=chats.classes,
        source="the assistant's turns in held-out dialogues",
        seed=seed,
    )


class AttributeBench:
    """An attribute at a checkpoint.

    Args:
        shuffled: Whether probes are fitted on shuffled labels; scores are on the true ones.
    """

    def __init__(
        self, model: Model, data: AttributeData, settings: Settings, seed: int, *, shuffled: bool = False
    ) -> None:
        self.model, self.data, self.settings, self.seed = model, data, settings, seed
        chats = data.chats
        if shuffled:
            order = torch.randperm(len(chats), generator=torch.Generator().manual_seed(seed + 7))
            chats = replace(chats, y=chats.y[order])
        self._fit_target = chats.y.bool() if chats.classes == 2 else chats.y
        gauge = Gauge(data.attribute.label, "", None, "", "last", True, tokenizer_fingerprint(model))
        self.fitted: FittedGauge = fit_gauge(model, gauge, chats, data.splits, seed=seed)
        self.sites = self.fitted.sites
        self.x = {
            place: activations_at_token(model, [e.ids for e in read], [-1] * len(chats), self.sites).float()
            for place, read in (("begun answer", chats.begun), ("instruction", chats.prompts))
        }

    def accuracies(self, probe: Probe, place: str) -> list[float]:
        """Accuracy on the test split at every site."""
        rows = self.data.splits.test
        return score("accuracy", probe.scores(self.x[place][:, rows]), self.data.target[rows]).tolist()

    def right_at_best_site(self, probe: Probe, place: str) -> list[bool]:
        """Whether each dialogue of the test split is read right, at the site that is best on the choose split."""
        choose, test = self.data.splits.choose, self.data.splits.test
        chosen = score("auroc", probe.scores(self.x[place][:, choose]), self._fit_target[choose]).nan_to_num(0.0)
        return _right(probe.scores(self.x[place][:, test])[int(chosen.argmax())], self.data.chats.y[test])

    def by_turn(self, turn: int) -> list[bool]:
        """Whether the reading probe is right about each dialogue after a turn of the user, from 0."""
        encodings, y = self.data.turns[turn]
        if not encodings or self.fitted.gauge.site is None:
            return []
        at = self.sites.index(self.fitted.gauge.site)
        x = activations_at_token(self.model, [e.ids for e in encodings], [-1] * len(encodings), [self.sites[at]])
        probe = self.fitted.reading
        return _right((x[0].float() @ probe.direction[at] + probe.bias[at]), y)

    @property
    def control_sites(self) -> list[int]:
        """Indices of the sites that are pushed: all outputs of blocks but the last, where a push is a constant in the logits."""
        return list(range(1, max(2, len(self.sites) - 1)))

    def probe(self, method: str, place: str, rows: Int[Tensor, " example"] | None = None) -> Probe:
        """A probe of the train split, or of some of its rows."""
        rows = self.data.splits.train if rows is None else rows
        groups = self.data.chats.groups[rows]
        fitted: Probe = plugins.load_plugin("probes", method).fit(
            self.x[place][:, rows], self._fit_target[rows], groups=groups, seed=self.seed
        )
        return fitted

    def cosine(self, one: Probe, other: Probe) -> float:
        """Cosine of two probes' vectors, mean over the pushed sites and the classes."""
        a, b = self.vectors(one)[self.control_sites], self.vectors(other)[self.control_sites]
        return float((a * b).sum(1).mean())

    def vectors(self, probe: Probe) -> Vectors:
        """Unit vectors towards each class."""
        weight = probe.direction.float().nan_to_num(0.0)
        if weight.shape[2] == 1:
            weight = torch.cat([-weight, weight], 2)
        return weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def random_vectors(self, number: int) -> Vectors:
        """Random unit vectors."""
        classes, start = self.data.chats.classes, 1000 * (100 * self.seed + number)
        rows = [random_unit_vector(self.model.d, start + i) for i in range(len(self.sites) * classes)]
        return torch.stack(rows).view(len(self.sites), classes, -1).mT

    def effect(self, vectors: Vectors, dose: float) -> float:
        """Mean change of the judge's log-odds for a class, in answers pushed towards it by a dose in distances of the class means."""
        gaps = self.fitted.control.facts["gap"].float().flatten(1).nan_to_num(0.0)
        questions, base = self._asked
        if questions.outcome is None or base is None:
            return math.nan
        changes = []
        for c in range(self.data.chats.classes):
            edits = [
                Edit(self.sites[i], Add(vectors[i, :, c], dose * float(gaps[i, c % gaps.shape[1]])), "last")
                for i in self.control_sites
            ]
            changes.append(float((questions.outcome(edits) - base)[:, c].mean()))
        return sum(changes) / len(changes)

    @property
    def why_unjudged(self) -> str:
        """Why answers cannot be judged."""
        return self._asked[0].reason

    @cached_property
    def _asked(self) -> tuple[Questions, Tensor | None]:
        rows = self.data.splits.test[: self.settings.questions]
        chats: Sequence[Chat] = [self.data.chats.chats[i] for i in rows.tolist()]
        questions = judged_questions(
            self.model, chats, self.data.chats.groups[rows], self.data.judge, True, tokens=self.settings.tokens
        )
        return questions, questions.outcome([]) if questions.outcome is not None else None


def _right(scores: Float[Tensor, "dialogue k"], y: Int[Tensor, " dialogue"]) -> list[bool]:
    guess = (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)
    return (guess == y).tolist()
