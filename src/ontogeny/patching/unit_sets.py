"""Ablation of a set of neurons against random ones of the same layers.

Such as those whose value vectors are nearest to a probe (arXiv:2504.14379, which has no null).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ontogeny.errors import BadInput
from ontogeny.interventions import Ablate
from ontogeny.models.model import Model, output_weight
from ontogeny.patching.head_sets import ScoreUnderEdits, SetEffect
from ontogeny.sites import Site
from ontogeny.steering.steer import Edit
from ontogeny.steering.token_selection import TokenSelection

Units = Sequence[tuple[int, int]]
"""(layer, unit): layers from 1, units from 0."""


@dataclass(frozen=True, eq=False)
class UnitSetEffect(SetEffect):
    """The effect of ablating a set of neurons."""

    units: tuple[tuple[int, int], ...]


def zeroed_units(model: Model, units: Units, where: TokenSelection = "last") -> list[Edit]:
    """Edits that set the activation of neurons to 0.

    Raises:
        BadInput: no neurons, a neuron twice or one that the model does not have, or a mixture of experts.
    """
    if not units or len(set(units)) < len(units):
        raise BadInput(f"`units` must be different neurons, at least one, got {list(units)[:6]}: name each once.")
    widths = {layer: _width(model, layer) for layer, _ in units if 1 <= layer <= model.layers}
    if odd := [one for one in units if not 0 <= one[1] < widths.get(one[0], 0)]:
        raise BadInput(f"`units` must be (layer, unit) of {model.layers} layers (from 1), got {odd[0]}: name others.")
    return [
        Edit(Site("neuron", layer), Ablate(torch.eye(width)[:, [u for own, u in units if own == layer]]), where)
        for layer, width in sorted(widths.items())
    ]


def ablate_unit_set(
    model: Model,
    units: Units,
    score: ScoreUnderEdits,
    *,
    sets: int = 100,
    where: TokenSelection = "last",
    seed: int = 0,
) -> UnitSetEffect:
    """Zero the neurons together, and as many random ones of the same layers, `sets` times.

    Args:
        score: Called with the edits; it scores the same examples each time.

    Raises:
        BadInput: fewer sets than two, or as `zeroed_units`.
    """
    if sets < 2:
        raise BadInput(f"`sets` must be at least 2, got {sets}: a null needs many, such as 100.")
    plain = score([])
    change = score(zeroed_units(model, units, where)) - plain
    drawn = random_unit_sets(model, units, sets, seed=seed)
    null = torch.stack([(score(zeroed_units(model, one, where)) - plain).double().mean() for one in drawn])
    return UnitSetEffect(change, null, tuple(sorted(units)))


def random_unit_sets(model: Model, units: Units, sets: int, *, seed: int = 0) -> list[tuple[tuple[int, int], ...]]:
    """Random sets of as many neurons in each layer, among those that are not in the set.

    Raises:
        BadInput: a layer has too few other neurons.
    """
    generator, chosen = torch.Generator().manual_seed(seed), set(units)
    others = {
        layer: [unit for unit in range(_width(model, layer)) if (layer, unit) not in chosen] for layer, _ in units
    }
    counts = Counter(layer for layer, _ in units)
    if short := [layer for layer, count in counts.items() if len(others[layer]) < count]:
        raise BadInput(
            f"layer {short[0]} must have as many other neurons as `units` names there, got {counts[short[0]]} of "
            f"{_width(model, short[0])}: name fewer."
        )
    return [
        tuple(
            (layer, others[layer][int(i)])
            for layer, count in sorted(counts.items())
            for i in torch.randperm(len(others[layer]), generator=generator)[:count]
        )
        for _ in range(sets)
    ]


def _width(model: Model, layer: int) -> int:
    return len(output_weight(model, Site("mlp", layer)))
