"""Value vectors of neurons: the output rows of MLPs nearest to a direction, by cosine, with the null of random directions.

An MLP, gated or not, writes Σ aᵢ vᵢ; its value vectors vᵢ are read in tokens by `ontogeny.lenses.read_in_tokens`, whose suppressed tokens
are those of the antipode −vᵢ (arXiv:2504.14379, arXiv:2203.14680).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics.similarity import unit_vectors
from ontogeny.models.model import Model, output_weight
from ontogeny.sites import Site
from ontogeny.statistics.control_tasks import random_directions


@dataclass(frozen=True, eq=False)
class ValueVector:
    """A neuron whose value vector is near a direction."""

    layer: int
    unit: int
    cosine: float
    """With the direction; below 0 for an antipode."""
    vector: Float[Tensor, " d"]
    chance: float
    """Largest absolute cosine with any value vector of these layers, mean over random directions."""

    @property
    def site(self) -> Site:
        """Site of the neurons of its layer."""
        return Site("neuron", self.layer)


def nearest_value_vectors(
    model: Model,
    direction: Float[Tensor, " d"],
    layers: Sequence[int] | None = None,
    *,
    top: int = 50,
    antipodes: bool = False,
    draws: int = 100,
    seed: int = 0,
) -> list[ValueVector]:
    """The value vectors with the largest cosine with a direction of the residual stream, such as a probe's.

    Args:
        layers: Counted from 1; by default all.
        top: Number of vectors, over all layers together.
        antipodes: Those with the smallest cosine instead.
        draws: Random directions of the null.

    Raises:
        BadInput: a direction of another width or of zeros, a layer that does not exist, or a mixture of experts.
    """
    if tuple(direction.shape) != (model.d,) or not bool(direction.isfinite().all()) or not bool(direction.any()):
        raise BadInput(
            f"`direction` must be {model.d} finite numbers, not all 0, got the shape {tuple(direction.shape)}."
        )
    wanted = list(range(1, model.layers + 1)) if layers is None else list(layers)
    if not wanted or any(not 1 <= layer <= model.layers for layer in wanted) or top < 1:
        raise BadInput(
            f"`layers` must lie between 1 and {model.layers} and `top` be at least 1, got {wanted[:6]} and {top}."
        )
    rows = [output_weight(model, Site("mlp", layer)).float().cpu() for layer in wanted]
    places = [(layer, unit) for layer, own in zip(wanted, rows, strict=True) for unit in range(len(own))]
    vectors = torch.cat(rows)
    units = unit_vectors(vectors).nan_to_num()  # a neuron that writes nothing is near no direction
    cosines = units @ unit_vectors(direction.cpu())
    chance = float((units @ random_directions(model.d, count=draws, seed=seed).double().T).abs().amax(0).mean())
    order = cosines.argsort(descending=not antipodes, stable=True)[:top].tolist()
    return [ValueVector(places[i][0], places[i][1], float(cosines[i]), vectors[i], chance) for i in order]
