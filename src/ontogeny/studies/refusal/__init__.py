"""Study: is refusal one direction, and does it transfer between stages? (arXiv:2406.11717, 2504.02904)"""

from collections.abc import Iterator, Mapping
from typing import Any

from ontogeny.jobs.compare.inputs import StudyInputs, text_tokens
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.studies.refusal.prompts import instructions_from_concept
from ontogeny.studies.refusal.refusal import run_refusal_study
from ontogeny.studies.refusal.settings import RefusalSettings

UNIT = "refusal"


def missing_inputs(inputs: StudyInputs) -> str | None:
    """The inputs that the study needs and does not have."""
    return None if inputs.requests else "`requests`"


def input_digest(inputs: StudyInputs) -> list[Any]:
    """The parts of the inputs that decide the numbers."""
    return [inputs.requests and inputs.requests.hash, inputs.phrases, inputs.template, inputs.seed]


def run(models: Mapping[str, Model], inputs: StudyInputs) -> Iterator[Record]:
    """Run the study on the stages of a comparison."""

    assert inputs.requests is not None
    harmful, harmless = instructions_from_concept(inputs.requests)
    settings = RefusalSettings(template=inputs.template, phrases=inputs.phrases, seed=inputs.seed)
    return run_refusal_study(models, harmful, harmless, settings)


def count_tokens(inputs: StudyInputs, stages: int, blocks: int) -> float:
    """Estimated tokens that pass through the models."""
    texts = [e.text for e in inputs.requests.examples] if inputs.requests else []
    return stages * text_tokens(texts) * blocks * 2 + stages * 4 * min(len(texts), 200) * 20 * 25
