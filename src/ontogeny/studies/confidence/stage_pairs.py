"""Confidence of two stages: their difference, the overlap of their entropy neurons, and swaps of these neurons' weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.examples import Answer
from ontogeny.metrics.calibration import expected_calibration_error
from ontogeny.models.model import Model
from ontogeny.neurons.entropy_neurons import matched_share, neuron_overlap, norm_matched_neurons
from ontogeny.neurons.swapped_weights import StageCache, cache_stage, swap_neuron_weights
from ontogeny.records import Record, StageRowBuilder
from ontogeny.statistics.bootstrap import BootstrapEstimate
from ontogeny.statistics.nulls import null_interval
from ontogeny.studies.confidence.measure import (
    StageConfidence,
    measure_stage_confidence,
)
from ontogeny.studies.confidence.neurons import EntropyNeuronLayer
from ontogeny.studies.confidence.settings import ConfidenceSettings

_MIN_MATCHED_SHARE = 0.5
"""Minimum share of neurons that match their counterpart in the other stage before neuron numbers are compared."""
_SWAP_METRICS = ("entropy", "ece")


def confidence_gap_rows(
    table: StageRowBuilder, stage: str, other: str, measured: Mapping[str, StageConfidence]
) -> Iterator[Record]:
    """The stage minus the other one, on the same texts and questions."""
    for name, number in measured[stage].numbers.items():
        gap = number - measured[other].numbers[name]
        yield table.row("confidence_gap", gap.value, stage, other, ends=gap.ends, n=gap.n, of=name)


def neuron_correspondence(stage: str, other: str, layers: Mapping[str, EntropyNeuronLayer]) -> tuple[float, str]:
    """Share of neurons that match their counterpart in the other stage, and why the stages cannot be compared, or ''."""
    own, others = layers[stage].rows, layers[other].rows
    if own.shape != others.shape:
        shapes = [
            f"{name} {len(rows)} neurons of width {rows.shape[1]}" for name, rows in ((stage, own), (other, others))
        ]
        return math.nan, f"the last MLPs differ: {', '.join(shapes)}"
    share = matched_share(own, others)
    why = f"only {share:.0%} of the neurons find themselves in {other}: no common ancestry, so numbers mean nothing"
    return share, why if share < _MIN_MATCHED_SHARE else ""


def neuron_overlap_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    layers: Mapping[str, EntropyNeuronLayer],
    settings: ConfidenceSettings,
) -> Iterator[Record]:
    """Match of the neurons, overlap of the candidates, and correlation of the norm-to-variance ratios."""
    share, why = neuron_correspondence(stage, other, layers)
    own, others = layers[stage], layers[other]
    table, n = replace(table, site=own.site), len(own.rows)
    yield table.row("neuron_match", share, stage, other, n=min(n, 512), reason=why)
    for by in own.candidates:
        if why:
            yield table.row("neuron_overlap", math.nan, stage, other, n=0, reason=why, by=by)
            continue
        overlap = neuron_overlap(own.candidates[by], others.candidates[by], among=n)
        coords: dict[str, Any] = {"by": by, "shared": overlap.shared, "p": f"{overlap.p:.3g}"}
        yield table.row("neuron_overlap", overlap.iou, stage, other, n=settings.count, **coords)
        ends = (0.0, overlap.chance_high)
        yield table.row(
            "neuron_overlap", overlap.chance, stage, other, ends=ends, n=settings.count, control="random_set", by=by
        )
    value = math.nan if why else float(torch.corrcoef(torch.stack([own.ratio, others.ratio]))[0, 1])
    yield table.row("neuron_ratio_correlation", value, stage, other, n=n, reason=why or "ratios are all alike")


def donor_stages(stage: str, order: Sequence[str], crossed: int) -> list[str]:
    """The stages whose neuron weights are put into this one."""
    if len(order) <= crossed:
        return [name for name in order if name != stage]
    own = order.index(stage)
    near = {0, own - 1, own + 1} if own else set(range(1, len(order)))
    return [order[i] for i in sorted(near) if 0 <= i < len(order) and i != own]


def neuron_swap_rows(
    table: StageRowBuilder,
    stage: str,
    model: Model,
    texts: Sequence[str],
    questions: Sequence[Answer],
    measured: Mapping[str, StageConfidence],
    layers: Mapping[str, EntropyNeuronLayer],
    settings: ConfidenceSettings,
) -> Iterator[Record]:
    """Effect of the output weights of each donor stage's candidates in this stage, and of its norm-matched neurons."""
    table, plain = replace(table, site=layers[stage].site), measured[stage].numbers
    draws: dict[str, list[list[int]]] = {}
    for donor in donor_stages(stage, list(layers), settings.crossed):
        _, why = neuron_correspondence(stage, donor, layers)
        if why:
            for of in _SWAP_METRICS:
                yield table.row("swap_effect", math.nan, stage, donor, n=0, reason=why, of=of)
            continue
        chosen, statistics = layers[donor].candidates["variance"], layers[donor].statistics
        seeds = range(settings.seed, settings.seed + settings.swaps)
        draws[donor] = [norm_matched_neurons(statistics, chosen, seed=seed) for seed in seeds]
    if not draws:
        return
    every = {neuron for sets in draws.values() for drawn in sets for neuron in drawn}
    cache = cache_stage(model, texts, questions, sorted(every), tokens=settings.tokens)
    for donor, sets in draws.items():
        chosen = layers[donor].candidates["variance"]
        with swap_neuron_weights(model, layers[donor].rows, chosen):
            after = measure_stage_confidence(model, texts, questions, settings).numbers
        nulls = _random_swaps(cache, layers[donor], sets, settings)
        for of in _SWAP_METRICS:
            change, drawn = after[of] - plain[of], nulls[of] - plain[of].value
            coords: dict[str, Any] = {"of": of, "neurons": len(chosen)}
            yield table.row("swap_effect", change.value, stage, donor, ends=change.ends, n=change.n, **coords)
            yield table.row(
                "swap_effect",
                float(drawn.mean()),
                stage,
                donor,
                ends=null_interval(drawn),
                n=change.n,
                control="random_neurons",
                note=f"{len(drawn)} sets of as many neurons of the same norm",
                **coords,
            )
            yield _swap_share_row(table, stage, donor, change, measured[donor].numbers[of] - plain[of], of)


def _random_swaps(
    cache: StageCache, layer: EntropyNeuronLayer, draws: Sequence[Sequence[int]], settings: ConfidenceSettings
) -> dict[str, Float[Tensor, " draw"]]:
    """Entropy and ECE with the donor's weights of each random set of neurons."""
    swapped = [cache.under(layer.rows, drawn) for drawn in draws]
    errors = [expected_calibration_error(of.confidence, of.hit, bins=settings.bins) for _, of in swapped]
    return {"entropy": torch.stack([entropy.mean() for entropy, _ in swapped]), "ece": torch.cat(errors)}


def _swap_share_row(
    table: StageRowBuilder, stage: str, donor: str, change: BootstrapEstimate, gap: BootstrapEstimate, of: str
) -> Record:
    """Share of the difference between two stages that the swap explains."""
    low, high = gap.ends
    if low <= 0 <= high:
        why = f"the stages do not differ for sure ({gap.value:.3f}, {low:.3f} to {high:.3f})"
        return table.row("swap_share", math.nan, stage, donor, n=0, reason=why, of=of)
    share = BootstrapEstimate(change.value / gap.value, change.samples / gap.samples, change.n, change.groups)
    return table.row("swap_share", share.value, stage, donor, ends=share.ends, n=share.n, of=of)
