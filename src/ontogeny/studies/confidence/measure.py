"""Confidence of one stage: entropy, calibration and Brier score, with the same resamples for all stages so that differences are paired."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.data.examples import Answer
from ontogeny.jobs.compare.rows import IntervalEnds, StageRowBuilder, interval_ends
from ontogeny.metrics.calibration import (
    Binning,
    brier_score,
    expected_calibration_error,
    perfect_calibration_error,
    reliability_bins,
)
from ontogeny.models.forward import forward_padded
from ontogeny.models.model import Model, next_token_logits
from ontogeny.neurons.last_layer_cache import entropy_of_logits
from ontogeny.neurons.mean_ablation import first_tokens
from ontogeny.records import Record
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.nulls import null_interval
from ontogeny.statistics.splits import number_groups
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers
from ontogeny.studies.confidence.settings import ConfidenceSettings

_CALIBRATION_ERRORS: dict[str, Binning] = {"ece": "width", "ece_adaptive": "count"}
"""Binning of each calibration error."""
_RANGES = {"entropy": (-math.inf, math.inf), "brier": (0.0, math.inf)}
"""Range of each metric; (0, 1) for the others."""


@dataclass(frozen=True, eq=False)
class BootstrapEstimate:
    """A mean or an error, and its value on each resample."""

    value: float
    samples: Float[Tensor, " sample"]
    n: int
    groups: int

    def __sub__(self, other: "BootstrapEstimate") -> "BootstrapEstimate":
        """The paired difference of two stages."""
        return BootstrapEstimate(self.value - other.value, self.samples - other.samples, self.n, self.groups)

    @property
    def ends(self) -> IntervalEnds:
        """95 % interval. Resampling noise increases an error, so the resamples are first centred on the value."""
        centred = self.samples - self.samples.nanmedian() + self.value
        return interval_ends(self.value, centred, groups=self.groups)


def bootstrap_mean(
    values: Float[Tensor, " example"], weights: Float[Tensor, "sample example"], groups: int
) -> BootstrapEstimate:
    """The mean of the values, with resamples."""
    w = weights.double()
    return BootstrapEstimate(float(values.mean()), w @ values.double() / w.sum(1), len(values), groups)


@dataclass(frozen=True, eq=False)
class AnswerProbabilities:
    """Probabilities that a model gives the right (0) and the wrong (1) answer of each question."""

    shares: Float[Tensor, "question 2"]

    @property
    def confidence(self) -> Float[Tensor, " question"]:
        return self.shares.amax(1)

    @property
    def hit(self) -> Bool[Tensor, " question"]:
        return self.shares.argmax(1) == 0


@dataclass(frozen=True, eq=False)
class StageConfidence:
    """Measurements of one stage."""

    numbers: dict[str, BootstrapEstimate]
    answers: AnswerProbabilities


def measure_stage_confidence(
    model: Model, texts: Sequence[str], questions: Sequence[Answer], settings: ConfidenceSettings
) -> StageConfidence:
    """Entropy and top probability on the texts; accuracy, confidence, Brier score and calibration errors on the questions."""
    entropy, top = next_token_certainty(model, texts, tokens=settings.tokens)
    answers, groups = answer_probabilities(model, questions), number_groups([q.group for q in questions])
    by_text, by_group = (
        group_weights(of, samples=settings.samples, seed=settings.seed) for of in (torch.arange(len(texts)), groups)
    )
    count = int(groups.max()) + 1
    numbers = {
        "entropy": bootstrap_mean(entropy, by_text, len(texts)),
        "top_probability": bootstrap_mean(top, by_text, len(texts)),
        "question_accuracy": bootstrap_mean(answers.hit.double(), by_group, count),
        "question_confidence": bootstrap_mean(answers.confidence.double(), by_group, count),
        "brier": bootstrap_mean(brier_score(answers.shares, torch.zeros_like(groups)), by_group, count),
    }
    for name, by in _CALIBRATION_ERRORS.items():
        error, samples = (
            expected_calibration_error(answers.confidence, answers.hit, bins=settings.bins, by=by, **weights)
            for weights in ({}, {"weights": by_group})
        )
        numbers[name] = BootstrapEstimate(float(error), samples, len(questions), count)
    return StageConfidence(numbers, answers)


@torch.no_grad()
def next_token_certainty(
    model: Model, texts: Sequence[str], *, tokens: int = 128, batch: int = 16
) -> tuple[Float[Tensor, " text"], Float[Tensor, " text"]]:
    """Entropy (nats) and top probability of the next token, means over the first `tokens` of each text."""
    ids = first_tokens(model, texts, tokens)
    certainty = torch.empty(2, len(ids), dtype=torch.float64)
    for rows, output in forward_padded(model, ids, batch=batch, body=True):
        for row, i in enumerate(rows):
            logits = next_token_logits(model, output.last_hidden_state[row, : len(ids[i])]).float()
            certainty[0, i] = entropy_of_logits(logits).double().mean()
            certainty[1, i] = logits.softmax(-1).amax(-1).double().mean()
    return certainty[0], certainty[1]


def answer_pairs(questions: Sequence[Answer]) -> list[tuple[str, str]]:
    """Each prompt with its right, then its wrong answer."""
    return [(q.prompt, answer) for q in questions for answer in (q.right, q.wrong)]


def answer_probabilities(model: Model, questions: Sequence[Answer]) -> AnswerProbabilities:
    """Softmax of the log-likelihoods of the two answers."""
    answers = tokenize_answers(model, answer_pairs(questions))
    return AnswerProbabilities(log_likelihoods(token_log_likelihoods(model, answers, batch=64)).view(-1, 2).softmax(1))


def stage_confidence_rows(
    table: StageRowBuilder, stage: str, measured: StageConfidence, settings: ConfidenceSettings
) -> Iterator[Record]:
    """Rows of one stage; a perfectly calibrated model is the baseline of the calibration errors."""
    answers = measured.answers
    for name, number in measured.numbers.items():
        low, high = _RANGES.get(name, (0.0, 1.0))
        ends = max(low, number.ends[0]), min(high, number.ends[1])
        yield table.row(name, number.value, stage, ends=ends, n=number.n)
    for name, by in _CALIBRATION_ERRORS.items():
        floor = perfect_calibration_error(
            answers.confidence, bins=settings.bins, by=by, samples=settings.samples, seed=settings.seed
        )
        yield table.row(
            name, float(floor.mean()), stage, ends=null_interval(floor), n=len(answers.shares), control="calibrated"
        )
    for of in reliability_bins(answers.confidence, answers.hit, bins=settings.bins):
        coords = {"confidence": f"{of.confidence:.6f}", "from": f"{of.low:g}", "to": f"{of.high:g}"}
        yield table.row("reliability", of.accuracy, stage, ends=(of.accuracy_low, of.accuracy_high), n=of.n, **coords)
