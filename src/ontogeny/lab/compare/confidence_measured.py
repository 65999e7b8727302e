"""The confidence of one stage in numbers, with resamples that are the same for all stages, so that differences are paired."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.lab.calibration import Bins, brier, calibrated, ece, reliability
from ontogeny.lab.compare.cells import Ends, Table
from ontogeny.lab.compare.confidence_asked import Answered, Certainty, Question, answered, certainty
from ontogeny.lab.compare.confidence_settings import ConfidenceSettings
from ontogeny.model import Model
from ontogeny.records import Record
from ontogeny.statistics.bootstrap import group_weights, interval

ERRORS: dict[str, Bins] = {"ece": "width", "ece_adaptive": "count"}
"""The calibration errors, each with its kind of bins."""


@dataclass(frozen=True, eq=False)
class Number:
    """A mean or an error, on everything and on each resample."""

    value: float
    samples: Float[Tensor, " sample"]
    n: int
    groups: int

    def __sub__(self, other: "Number") -> "Number":
        """The difference of two stages, resample by resample."""
        return Number(self.value - other.value, self.samples - other.samples, self.n, self.groups)

    @property
    def ends(self) -> Ends:
        """95 % interval. Resamples of an error lie above it, as noise adds to it: they are moved back onto it first."""
        centred = self.samples - self.samples.nanmedian() + self.value
        found = interval(torch.tensor([self.value], dtype=torch.float64), centred[:, None], groups=self.groups)
        return float(found.low), float(found.high)


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of one stage."""

    numbers: dict[str, Number]
    answers: Answered


def measured(
    model: Model, texts: Sequence[str], questions: Sequence[Question], settings: ConfidenceSettings
) -> Measured:
    """Entropy and top probability on the texts; accuracy, confidence, ECE and Brier on the questions."""
    sure, said = certainty(model, texts, tokens=settings.tokens), answered(model, questions)
    return Measured({**of_texts(sure, settings), **of_answers(said, questions, settings)}, said)


def of_texts(sure: Certainty, settings: ConfidenceSettings) -> dict[str, Number]:
    weights = group_weights(torch.arange(len(sure.entropy)), samples=settings.samples, seed=settings.seed)
    values = {"entropy": sure.entropy, "top_probability": sure.top}
    return {name: _mean(of, weights, len(of)) for name, of in values.items()}


def of_answers(said: Answered, questions: Sequence[Question], settings: ConfidenceSettings) -> dict[str, Number]:
    names = {g: i for i, g in enumerate(dict.fromkeys(q.group for q in questions))}
    groups = torch.tensor([names[q.group] for q in questions])
    weights = group_weights(groups, samples=settings.samples, seed=settings.seed)
    means = {
        "question_accuracy": said.hit.double(),
        "question_confidence": said.confidence.double(),
        "brier": brier(said.shares, said.right),
    }
    found = {name: _mean(values, weights, len(names)) for name, values in means.items()}
    for name, by in ERRORS.items():
        value = float(ece(said.confidence, said.hit, bins=settings.bins, by=by))
        samples = ece(said.confidence, said.hit, bins=settings.bins, by=by, weights=weights)
        found[name] = Number(value, samples, len(questions), len(names))
    return found


def _mean(values: Float[Tensor, " example"], weights: Float[Tensor, "sample example"], groups: int) -> Number:
    w = weights.double()
    return Number(float(values.mean()), w @ values.double() / w.sum(1), len(values), groups)


def stage_rows(table: Table, stage: str, of: Measured, settings: ConfidenceSettings) -> Iterator[Record]:
    """Rows of one stage, with what noise alone would give as the floor of its calibration errors."""
    for name, number in of.numbers.items():
        low, high = number.ends
        inside = (low, high) if name == "entropy" else (max(0.0, low), high if name == "brier" else min(1.0, high))
        yield table.row(name, number.value, stage, ends=inside, n=number.n)
    for name, by in ERRORS.items():
        floor = calibrated(
            of.answers.confidence, bins=settings.bins, by=by, samples=settings.samples, seed=settings.seed
        )
        low, high = (float(floor.quantile(q)) for q in (0.025, 0.975))
        yield table.row(
            name, float(floor.mean()), stage, ends=(low, high), n=len(of.answers.right), control="calibrated"
        )
    for one in reliability(of.answers.confidence, of.answers.hit, bins=settings.bins):
        yield table.row(
            "reliability",
            one.accuracy,
            stage,
            ends=(one.accuracy_low, one.accuracy_high),
            n=one.n,
            coords={"confidence": f"{one.confidence:.6f}", "from": f"{one.low:g}", "to": f"{one.high:g}"},
        )
