"""Study: truth directions, probes and steering, stage by stage (arXiv:2310.06824, 2504.02904)."""

from collections.abc import Iterator, Mapping
from typing import Any

from ontogeny.jobs.compare.inputs import StudyInputs, question_digest, text_tokens
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.studies.truthfulness.truthfulness import TruthfulnessSettings, run_truthfulness_study

UNIT = "truth"


def missing_inputs(inputs: StudyInputs) -> str | None:
    """The inputs that the study needs and does not have."""
    return None if inputs.statements else "`statements`"


def input_digest(inputs: StudyInputs) -> list[Any]:
    """The parts of the inputs that decide the numbers."""
    statements = [[c.name, c.hash] for c in inputs.statements]
    return [statements, question_digest(inputs.question), inputs.seed]


def run(models: Mapping[str, Model], inputs: StudyInputs) -> Iterator[Record]:
    """Run the study on the stages of a comparison."""

    return run_truthfulness_study(
        models, inputs.statements, TruthfulnessSettings(question=inputs.question, seed=inputs.seed)
    )


def count_tokens(inputs: StudyInputs, stages: int, _: int) -> float:
    """Estimated tokens that pass through the models."""
    texts = [e.text for c in inputs.statements for e in c.examples]
    # Two tokens and a short question of the held-out third, along and against, for each vector and about 70 random ones.
    many = stages**2 if stages <= 4 else 2 * stages
    return stages * text_tokens(texts) + (stages**2 * 4 + many * 140) * len(texts) * 0.3 * 6
