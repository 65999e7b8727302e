"""Study: where each stage stores facts, and what later stages keep (causal tracing, arXiv:2202.05262, 2504.02904)."""

from collections.abc import Iterator, Mapping
from typing import Any

from ontogeny.jobs.compare.inputs import StudyInputs, question_digest, text_tokens, verdict_question_for
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.studies.knowledge.knowledge import KnowledgeSettings, run_knowledge_study
from ontogeny.studies.knowledge.prompt_pairs import TruthQuestion, mine_pairs

UNIT = "knowledge"


def missing_inputs(inputs: StudyInputs) -> str | None:
    """The inputs that the study needs and does not have."""
    return None if inputs.statements else "`statements`"


def input_digest(inputs: StudyInputs) -> list[Any]:
    """The parts of the inputs that decide the numbers."""
    statements = [[c.name, c.hash] for c in inputs.statements[:1]]
    # Runs from before the choice of a pairing hold what `auto` gives.
    pairing = [] if inputs.pairing == "auto" else [inputs.pairing]
    return [statements, question_digest(inputs.question), *pairing, inputs.seed]


def run(models: Mapping[str, Model], inputs: StudyInputs) -> Iterator[Record]:
    """Run the study on the stages of a comparison."""

    tokenizer = next(iter(models.values())).tokenizer
    how = inputs.question or verdict_question_for(tokenizer)
    asking = TruthQuestion(how.suffix, how.true, how.false, how.shots) if how else None
    pairs = mine_pairs(inputs.statements[0], tokenizer, pairing=inputs.pairing, asking=asking, seed=inputs.seed)
    return run_knowledge_study(models, pairs, KnowledgeSettings(seed=inputs.seed))


def count_tokens(inputs: StudyInputs, stages: int, blocks: int) -> float:
    """Estimated tokens that pass through the models."""
    texts = [e.text for e in inputs.statements[0].examples]
    tokens = text_tokens(texts) / len(texts)
    # Of 50 pairs, every token of every block from there on, in several modes and across stages.
    return 50 * tokens**2 / 2 * blocks / 2 * (stages * 4 + stages**2)
