"""Confidence, stage by stage: how sure, how rightly so, and whether the neurons that set it are the same (arXiv:2504.02904).

The paper compares entropy neurons and leaves confidence itself unmeasured; here both: entropy and top probability on neutral texts, ECE and
Brier on questions, the neurons and their overlap, the causal test of each, and the swap of their rows between stages.
"""

from collections.abc import Iterator, Mapping, Sequence

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.jobs.compare.rows import StageRowBuilder
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.studies.confidence.measure import (
    CalibrationQuestion,
    StageConfidence,
    calibration_questions,
    measure_stage_confidence,
    stage_confidence_rows,
)
from ontogeny.studies.confidence.neurons import EntropyNeuronLayer, entropy_neuron_rows, find_entropy_neurons
from ontogeny.studies.confidence.settings import ConfidenceSettings
from ontogeny.studies.confidence.stage_pairs import confidence_gap_rows, neuron_overlap_rows, neuron_swap_rows


def run_confidence_study(
    models: Mapping[str, Model],
    texts: Sequence[str],
    questions: Sequence[Answer | CalibrationQuestion],
    settings: ConfidenceSettings | None = None,
) -> Iterator[Record]:
    """Rows of all stages.

    Raises:
        BadInput: fewer than two stages, no texts, or questions that cannot be scored.
    """
    chosen, asked = settings or ConfidenceSettings(), calibration_questions(questions)
    if len(models) < 2:
        raise BadInput(f"a comparison needs at least two stages, given {len(models)}. Name another.")
    if len(texts) < 2 or len({q.group for q in asked}) < 2:
        raise BadInput(
            f"confidence needs two texts and questions of two groups at least, given {len(texts)} and {len(asked)}. Add some."
        )
    table = StageRowBuilder("confidence", "all", "forward", chosen.seed, "all")
    sure: dict[str, StageConfidence] = {}
    layers: dict[str, EntropyNeuronLayer] = {}
    for name in models:
        model = models[name]
        sure[name] = measure_stage_confidence(model, texts, asked, chosen)
        yield from stage_confidence_rows(table, name, sure[name], chosen)
        layers[name] = find_entropy_neurons(model, chosen)
        yield from entropy_neuron_rows(table, name, model, texts, layers[name], chosen)
    for name in models:
        for other in models:
            if other != name:
                yield from confidence_gap_rows(table, name, other, sure)
                yield from neuron_overlap_rows(table, name, other, layers, chosen)
        if chosen.swaps:
            yield from neuron_swap_rows(table, name, models[name], texts, asked, sure, layers, chosen)
