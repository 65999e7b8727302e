"""Confidence, stage by stage: how sure, how rightly so, and whether the neurons that set it are the same (arXiv:2504.02904).

The paper compares entropy neurons and leaves confidence itself unmeasured; here both: entropy and top probability on neutral texts, ECE and
Brier on questions, the neurons and their overlap, the causal test of each, and the swap of their rows between stages.
"""

from collections.abc import Iterator, Mapping, Sequence

from ontogeny.concept import Answer
from ontogeny.errors import BadInput
from ontogeny.lab.compare.cells import Table
from ontogeny.lab.compare.confidence_asked import Question, questions_of
from ontogeny.lab.compare.confidence_measured import Measured, measured, stage_rows
from ontogeny.lab.compare.confidence_neurons import Layer, layer_of, neuron_rows
from ontogeny.lab.compare.confidence_pairs import gap_rows, overlap_rows, swap_rows
from ontogeny.lab.compare.confidence_settings import ConfidenceSettings
from ontogeny.model import Model
from ontogeny.records import Record


def confidence(
    models: Mapping[str, Model],
    texts: Sequence[str],
    questions: Sequence[Answer | Question],
    settings: ConfidenceSettings | None = None,
) -> Iterator[Record]:
    """Rows of all stages.

    Raises:
        BadInput: fewer than two stages, no texts, or questions that cannot be scored.
    """
    chosen, asked = settings or ConfidenceSettings(), questions_of(questions)
    if len(models) < 2:
        raise BadInput(f"a comparison needs at least two stages, given {len(models)}. Name another.")
    if len(texts) < 2 or len({q.group for q in asked}) < 2:
        raise BadInput(
            f"confidence needs two texts and questions of two groups at least, given {len(texts)} and {len(asked)}. Add some."
        )
    table = Table("confidence", "all", "forward", chosen.seed, "all")
    sure: dict[str, Measured] = {}
    layers: dict[str, Layer] = {}
    for name in models:
        model = models[name]
        sure[name] = measured(model, texts, asked, chosen)
        yield from stage_rows(table, name, sure[name], chosen)
        layers[name] = layer_of(model, chosen)
        yield from neuron_rows(table, name, model, texts, layers[name], chosen)
    for name in models:
        for other in models:
            if other != name:
                yield from gap_rows(table, name, other, sure)
                yield from overlap_rows(table, name, other, layers, chosen)
        if chosen.swaps:
            yield from swap_rows(table, name, models[name], texts, asked, sure, layers, chosen)
