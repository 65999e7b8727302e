"""The refusal direction of a stage: mean of harmful minus mean of harmless instructions, where the answer begins (arXiv:2406.11717).

Its interval and its own noise come from the groups of the instructions: leaving each out (jackknife), and halves against halves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import student_t_quantile
from ontogeny.studies.refusal.prompts import InstructionSplit, PromptTemplate

LayerPosition = tuple[int, int]
"""A layer, and a position counted from the end: -1 is the last token."""


@dataclass(frozen=True, eq=False)
class PromptActivations:
    """Activations of both kinds of instructions at every spot."""

    x: Float[Tensor, "spot example d"]
    spots: tuple[LayerPosition, ...]
    harmful: Tensor
    """Which examples are, Bool."""
    group: Int[Tensor, " example"]

    def at(self, spot: LayerPosition) -> Float[Tensor, "example d"]:
        return self.x[self.spots.index(spot)]

    def difference(
        self, spot: LayerPosition, weights: Float[Tensor, "sample example"] | None = None
    ) -> Float[Tensor, "*sample d"]:
        """Mean of the harmful minus mean of the harmless, weighted by example where weights are given."""
        x = self.at(spot).double()
        w = torch.ones(1, len(x), dtype=torch.float64) if weights is None else weights.double()
        sides = []
        for mine in (self.harmful, ~self.harmful):
            share = w[:, mine]
            sides.append(share @ x[mine] / share.sum(1, keepdim=True))
        made = sides[0] - sides[1]
        return made[0] if weights is None else made


def read_prompt_activations(
    model: Model, part: InstructionSplit, framing: PromptTemplate, *, layers: Sequence[int], positions: int
) -> PromptActivations:
    """The stream behind each of the layers at each of the last positions."""
    both = (*part.harmful, *part.harmless)
    rows = framing.tokens(model, [one.text for one in both])
    sites = [Site("resid", layer) for layer in layers]
    spots = tuple((layer, -1 - back) for back in range(positions) for layer in layers)
    x = torch.cat(
        [activations_at_token(model, rows, [len(row) - 1 - back for row in rows], sites) for back in range(positions)]
    )
    names = {name: i for i, name in enumerate(dict.fromkeys(one.group for one in both))}
    harmful = torch.arange(len(both)) < len(part.harmful)
    return PromptActivations(x, spots, harmful, torch.tensor([names[one.group] for one in both]))


def jackknife_cosine(
    one: PromptActivations, spot: LayerPosition, other: PromptActivations, other_spot: LayerPosition
) -> tuple[float, float, float]:
    """Cosine of two stages' directions, with its 95 % interval by leaving out each group in both, on Fisher's scale.

    A bootstrap would not do: it adds noise to both directions and pulls their cosine down.
    """
    value = _cosine(one.difference(spot), other.difference(other_spot))
    groups = one.group.unique()
    kept = (one.group[None] != groups[:, None]).double()
    # A group that holds a whole side cannot be left out.
    kept = kept[[bool(k[one.harmful].any() and k[~one.harmful].any()) for k in kept]]
    n = len(kept)
    if n < 3 or not math.isfinite(float(value)) or abs(float(value)) > 1 - 1e-9:
        return float(value), math.nan, math.nan
    z = torch.atanh(_cosine(one.difference(spot, kept), other.difference(other_spot, kept)))
    spread = float(((n - 1) / n * (z - z.mean()).square().sum()).sqrt())
    middle, half = math.atanh(float(value)), student_t_quantile(n - 1, 0.95) * spread
    return float(value), math.tanh(middle - half), math.tanh(middle + half)


def split_half_cosine(one: PromptActivations, spot: LayerPosition, *, times: int = 50, seed: int = 0) -> float:
    """Mean cosine of the directions that two halves of the groups give: how far noise alone turns it, with half of the data."""
    generator = torch.Generator().manual_seed(seed)
    groups = one.group.unique()
    found = []
    for _ in range(times):
        inside = torch.isin(one.group, groups[torch.randperm(len(groups), generator=generator)[: len(groups) // 2]])
        sides = torch.stack([inside, ~inside]).double()
        if all(bool(side[mine].any()) for side in sides for mine in (one.harmful, ~one.harmful)):
            a, b = one.difference(spot, sides)
            found.append(float(_cosine(a, b)))
    return sum(found) / len(found) if found else math.nan


def random_cosine_bound(d: int) -> float:
    """97.5 % quantile of the cosine of two random directions, normal approximation."""
    return 1.959964 / math.sqrt(d)


def _cosine(a: Float[Tensor, "*sample d"], b: Float[Tensor, "*sample d"]) -> Float[Tensor, "*sample"]:
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)
