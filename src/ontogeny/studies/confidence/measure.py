"""The confidence of one stage in numbers, with resamples that are the same for all stages, so that differences are paired."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.rows import IntervalEnds, StageRowBuilder
from ontogeny.metrics.calibration import (
    Binning,
    brier_score,
    expected_calibration_error,
    perfect_calibration_error,
    reliability_bins,
)
from ontogeny.models.model import Model, next_token_logits
from ontogeny.neurons.last_layer_cache import entropy_of_logits
from ontogeny.neurons.mean_ablation import first_tokens
from ontogeny.records import Record
from ontogeny.statistics.bootstrap import group_weights, percentile_interval
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers
from ontogeny.studies.confidence.settings import ConfidenceSettings

_CALIBRATION_ERRORS: dict[str, Binning] = {"ece": "width", "ece_adaptive": "count"}
"""The calibration errors, each with its kind of bins."""


@dataclass(frozen=True, eq=False)
class BootstrapEstimate:
    """A mean or an error, on everything and on each resample."""

    value: float
    samples: Float[Tensor, " sample"]
    n: int
    groups: int

    def __sub__(self, other: "BootstrapEstimate") -> "BootstrapEstimate":
        """The difference of two stages, resample by resample."""
        return BootstrapEstimate(self.value - other.value, self.samples - other.samples, self.n, self.groups)

    @property
    def ends(self) -> IntervalEnds:
        """95 % interval. Resamples of an error lie above it, as noise adds to it: they are moved back onto it first."""
        centred = self.samples - self.samples.nanmedian() + self.value
        found = percentile_interval(
            torch.tensor([self.value], dtype=torch.float64), centred[:, None], groups=self.groups
        )
        return float(found.low), float(found.high)


@dataclass(frozen=True, eq=False)
class StageConfidence:
    """What is known of one stage."""

    numbers: dict[str, BootstrapEstimate]
    answers: OptionProbabilities


def measure_stage_confidence(
    model: Model, texts: Sequence[str], questions: Sequence[CalibrationQuestion], settings: ConfidenceSettings
) -> StageConfidence:
    """Entropy and top probability on the texts; accuracy, confidence, ECE and Brier on the questions."""
    sure, said = next_token_certainty(model, texts, tokens=settings.tokens), option_probabilities(model, questions)
    return StageConfidence(
        {**_entropy_estimates(sure, settings), **_calibration_estimates(said, questions, settings)}, said
    )


def _entropy_estimates(sure: NextTokenCertainty, settings: ConfidenceSettings) -> dict[str, BootstrapEstimate]:
    weights = group_weights(torch.arange(len(sure.entropy)), samples=settings.samples, seed=settings.seed)
    values = {"entropy": sure.entropy, "top_probability": sure.top}
    return {name: _mean(of, weights, len(of)) for name, of in values.items()}


def _calibration_estimates(
    said: OptionProbabilities, questions: Sequence[CalibrationQuestion], settings: ConfidenceSettings
) -> dict[str, BootstrapEstimate]:
    names = {g: i for i, g in enumerate(dict.fromkeys(q.group for q in questions))}
    groups = torch.tensor([names[q.group] for q in questions])
    weights = group_weights(groups, samples=settings.samples, seed=settings.seed)
    means = {
        "question_accuracy": said.hit.double(),
        "question_confidence": said.confidence.double(),
        "brier": brier_score(said.shares, said.right),
    }
    found = {name: _mean(values, weights, len(names)) for name, values in means.items()}
    for name, by in _CALIBRATION_ERRORS.items():
        value = float(expected_calibration_error(said.confidence, said.hit, bins=settings.bins, by=by))
        samples = expected_calibration_error(said.confidence, said.hit, bins=settings.bins, by=by, weights=weights)
        found[name] = BootstrapEstimate(value, samples, len(questions), len(names))
    return found


def _mean(
    values: Float[Tensor, " example"], weights: Float[Tensor, "sample example"], groups: int
) -> BootstrapEstimate:
    w = weights.double()
    return BootstrapEstimate(float(values.mean()), w @ values.double() / w.sum(1), len(values), groups)


def stage_confidence_rows(
    table: StageRowBuilder, stage: str, of: StageConfidence, settings: ConfidenceSettings
) -> Iterator[Record]:
    """Rows of one stage, with what noise alone would give as the floor of its calibration errors."""
    for name, number in of.numbers.items():
        low, high = number.ends
        inside = (low, high) if name == "entropy" else (max(0.0, low), high if name == "brier" else min(1.0, high))
        yield table.row(name, number.value, stage, ends=inside, n=number.n)
    for name, by in _CALIBRATION_ERRORS.items():
        floor = perfect_calibration_error(
            of.answers.confidence, bins=settings.bins, by=by, samples=settings.samples, seed=settings.seed
        )
        low, high = (float(floor.quantile(q)) for q in (0.025, 0.975))
        yield table.row(
            name, float(floor.mean()), stage, ends=(low, high), n=len(of.answers.right), control="calibrated"
        )
    for one in reliability_bins(of.answers.confidence, of.answers.hit, bins=settings.bins):
        yield table.row(
            "reliability",
            one.accuracy,
            stage,
            ends=(one.accuracy_low, one.accuracy_high),
            n=one.n,
            coords={"confidence": f"{one.confidence:.6f}", "from": f"{one.low:g}", "to": f"{one.high:g}"},
        )


@dataclass(frozen=True)
class CalibrationQuestion:
    """A prompt and its possible answers."""

    prompt: str
    options: tuple[str, ...]
    right: int
    """Which of them."""
    group: str

    def __post_init__(self) -> None:
        if len(set(self.options)) < 2 or not 0 <= self.right < len(self.options):
            raise BadInput(
                f"a question needs two different answers and one that is right: {self.prompt[:60]!r} has {self.options}. Correct it."
            )


def calibration_questions(answers: Sequence[Answer | CalibrationQuestion]) -> list[CalibrationQuestion]:
    """The answers of a concept, right and wrong, as questions."""
    return [
        a if isinstance(a, CalibrationQuestion) else CalibrationQuestion(a.prompt, (a.right, a.wrong), 0, a.group)
        for a in answers
    ]


@dataclass(frozen=True, eq=False)
class NextTokenCertainty:
    """Of the next token; one number a text, mean over its tokens."""

    entropy: Float[Tensor, " text"]
    """Nats."""
    top: Float[Tensor, " text"]
    """Probability of the likeliest token."""


@torch.no_grad()
def next_token_certainty(
    model: Model, texts: Sequence[str], *, tokens: int = 128, batch: int = 16
) -> NextTokenCertainty:
    """On the first `tokens` of each text."""
    rows = first_tokens(model, texts, tokens)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = torch.empty(2, len(rows), dtype=torch.float64)
    for start in range(0, len(order), batch):
        mine = order[start : start + batch]
        ids = torch.nn.utils.rnn.pad_sequence([rows[i] for i in mine], batch_first=True).to(model.device)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(rows[i]) for i in mine], batch_first=True)
        normed = model.body(input_ids=ids, attention_mask=mask.to(ids.device), use_cache=False).last_hidden_state
        for row, i in enumerate(mine):
            scores = next_token_logits(model, normed[row, : len(rows[i])]).float()
            found[0, i] = entropy_of_logits(scores).double().mean()
            found[1, i] = scores.softmax(-1).amax(-1).double().mean()
    return NextTokenCertainty(found[0], found[1])


@dataclass(frozen=True, eq=False)
class OptionProbabilities:
    """Questions of one number of options, and how a model shares its belief among them."""

    shares: Float[Tensor, "question option"]
    right: Int[Tensor, " question"]

    @property
    def confidence(self) -> Float[Tensor, " question"]:
        return self.shares.amax(1)

    @property
    def hit(self) -> Bool[Tensor, " question"]:
        return self.shares.argmax(1) == self.right


def option_probabilities(model: Model, questions: Sequence[CalibrationQuestion]) -> OptionProbabilities:
    """Softmax of the options' log-likelihoods, each as a whole.

    Raises:
        BadInput: no questions, or questions with different numbers of options.
    """
    if len({len(q.options) for q in questions}) != 1:
        raise BadInput(
            f"{len(questions)} questions have {sorted({len(q.options) for q in questions})} options; calibration needs one number of "
            "them for all. Ask them apart."
        )
    pairs = [(q.prompt, option) for q in questions for option in q.options]
    scores = log_likelihoods(token_log_likelihoods(model, tokenize_answers(model, pairs), batch=64)).view(
        len(questions), -1
    )
    return OptionProbabilities(scores.softmax(1), torch.tensor([q.right for q in questions]))
