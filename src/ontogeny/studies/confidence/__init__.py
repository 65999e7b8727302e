"""Study: entropy, calibration and entropy neurons per stage (arXiv:2406.16254, 2504.02904).

arXiv:2504.02904 compares entropy neurons but does not measure confidence. This study measures entropy and top probability on neutral
texts, ECE and Brier score on questions, the overlap of entropy neurons, a causal test of each, and swaps of their weights between stages.
"""

from collections.abc import Iterator, Mapping

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.models.model import Model
from ontogeny.records import Record, StageRowBuilder
from ontogeny.studies.confidence.measure import StageConfidence, measure_stage_confidence, stage_confidence_rows
from ontogeny.studies.confidence.neurons import EntropyNeuronLayer, entropy_neuron_rows, find_entropy_neurons
from ontogeny.studies.confidence.settings import ConfidenceSettings
from ontogeny.studies.confidence.stage_pairs import confidence_gap_rows, neuron_overlap_rows, neuron_swap_rows

TITLE = "Confidence"
INPUTS = ("neutral", "questions")


def settings(inputs: StudyInputs) -> ConfidenceSettings:
    """Default settings with the comparison's seed."""
    return ConfidenceSettings(seed=inputs.seed)


def cost(inputs: StudyInputs, sizes: StageSizes) -> float:
    """Estimated tokens that pass through the models."""
    texts = [*inputs.neutral, *(a.prompt + a.right for a in inputs.questions for _ in range(2))]
    return text_tokens(texts) * (sizes.stages * 25 + sizes.stages**2 * 3)


def run(stages: Mapping[str, Model], inputs: StudyInputs, settings: ConfidenceSettings) -> Iterator[Record]:
    """Rows of all stages and pairs of stages.

    Raises:
        BadInput: fewer than two stages or texts, or questions that cannot be scored.
    """
    texts, questions = inputs.neutral, inputs.questions
    if len(stages) < 2:
        raise BadInput(f"a comparison needs at least two stages, got {len(stages)}: name another one.")
    if len(texts) < 2 or len({q.group for q in questions}) < 2:
        raise BadInput(
            f"confidence needs at least two texts and questions of two groups, got {len(texts)} and {len(questions)}: add some."
        )
    if equal := [q for q in questions if q.right == q.wrong]:
        raise BadInput(
            f"a question must have two different answers, got {equal[0].right!r} twice for {equal[0].prompt[:60]!r}: correct it."
        )
    table = StageRowBuilder("confidence", "all", "forward", settings.seed, "all")
    measured: dict[str, StageConfidence] = {}
    layers: dict[str, EntropyNeuronLayer] = {}
    for name in stages:
        model = stages[name]
        measured[name] = measure_stage_confidence(model, texts, questions, settings)
        yield from stage_confidence_rows(table, name, measured[name], settings)
        layers[name] = find_entropy_neurons(model, settings)
        yield from entropy_neuron_rows(table, name, model, texts, layers[name], settings)
    for name in stages:
        for other in stages:
            if other != name:
                yield from confidence_gap_rows(table, name, other, measured)
                yield from neuron_overlap_rows(table, name, other, layers, settings)
        if settings.swaps:
            yield from neuron_swap_rows(table, name, stages[name], texts, questions, measured, layers, settings)
