"""Study: entropy, calibration and entropy neurons per stage (arXiv:2406.16254, 2504.02904)."""

from collections.abc import Iterator, Mapping
from typing import Any

from ontogeny.jobs.compare.inputs import StudyInputs, text_tokens
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.studies.confidence.confidence import run_confidence_study
from ontogeny.studies.confidence.settings import ConfidenceSettings

UNIT = "confidence"


def missing_inputs(inputs: StudyInputs) -> str | None:
    """The inputs that the study needs and does not have."""
    return None if inputs.neutral and inputs.questions else "`neutral` texts and `questions` with answers"


def input_digest(inputs: StudyInputs) -> list[Any]:
    """The parts of the inputs that decide the numbers."""
    questions = [[a.prompt, a.right, a.wrong, a.group] for a in inputs.questions]
    return [inputs.neutral, questions, inputs.seed]


def run(models: Mapping[str, Model], inputs: StudyInputs) -> Iterator[Record]:
    """Run the study on the stages of a comparison."""

    return run_confidence_study(models, inputs.neutral, inputs.questions, ConfidenceSettings(seed=inputs.seed))


def count_tokens(inputs: StudyInputs, stages: int, _: int) -> float:
    """Estimated tokens that pass through the models."""
    texts = [*inputs.neutral, *(a.prompt + a.right for a in inputs.questions for _ in range(2))]
    return text_tokens(texts) * (stages * 25 + stages**2 * 3)
