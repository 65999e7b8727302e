"""Confidence of one stage: entropy, calibration and Brier score, with the same resamples for all stages so that differences are paired."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ontogeny.data.examples import Answer
from ontogeny.metrics.calibration import (
    Binning,
    brier_score,
    expected_calibration_error,
    perfect_calibration_error,
    reliability_bins,
)
from ontogeny.models.model import Model
from ontogeny.records import Record, StageRowBuilder
from ontogeny.statistics.bootstrap import BootstrapEstimate, bootstrap_mean, group_weights
from ontogeny.statistics.nulls import null_interval
from ontogeny.statistics.splits import number_groups
from ontogeny.studies.confidence.settings import ConfidenceSettings
from ontogeny.tasks.confidence import AnswerProbabilities, answer_probabilities, next_token_certainty

_CALIBRATION_ERRORS: dict[str, Binning] = {"ece": "width", "ece_adaptive": "count"}
"""Binning of each calibration error."""
_RANGES = {"entropy": (-math.inf, math.inf), "brier": (0.0, math.inf)}
"""Range of each metric; (0, 1) for the others."""


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
