"""Refusal direction of a stage: mean of harmful minus mean of harmless instructions, where the answer begins (arXiv:2406.11717).

Its interval is a jackknife over the groups of instructions, its noise the cosine of directions from halves of the groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import student_t_quantile
from ontogeny.statistics.splits import number_groups
from ontogeny.steering.instruction_split import InstructionSplit
from ontogeny.steering.refusal_prompts import PromptTemplate

LayerPosition = tuple[int, int]
"""A layer, and a token position counted from the end: -1 is the last token."""


@dataclass(frozen=True, eq=False)
class PromptActivations:
    """Activations of harmful and harmless instructions at several layers and positions."""

    x: Float[Tensor, "spot example d"]
    spots: tuple[LayerPosition, ...]
    harmful: Bool[Tensor, " example"]
    group: Int[Tensor, " example"]

    def difference(
        self, spot: LayerPosition, weights: Float[Tensor, "sample example"] | None = None
    ) -> Float[Tensor, "*sample d"]:
        """Mean of the harmful minus mean of the harmless instructions; with weights, one difference per sample."""
        x = self.x[self.spots.index(spot)].double()
        w = torch.ones(1, len(x), dtype=torch.float64) if weights is None else weights.double()
        harmful, harmless = (
            w[:, kind] @ x[kind] / w[:, kind].sum(1, keepdim=True) for kind in (self.harmful, ~self.harmful)
        )
        return (harmful - harmless)[0] if weights is None else harmful - harmless


def read_prompt_activations(
    model: Model, part: InstructionSplit, template: PromptTemplate, *, layers: Sequence[int], positions: int
) -> PromptActivations:
    """The residual stream after each of the layers at each of the last positions."""
    rows = template.tokens(model, [e.text for e in part.all])
    sites = [Site("resid", layer) for layer in layers]
    spots = tuple((layer, -1 - back) for back in range(positions) for layer in layers)
    x = torch.cat(
        [activations_at_token(model, rows, [len(row) - 1 - back for row in rows], sites) for back in range(positions)]
    )
    harmful = torch.arange(len(part.all)) < len(part.harmful)
    return PromptActivations(x, spots, harmful, number_groups([e.group for e in part.all]))


def jackknife_cosine(
    one: PromptActivations, spot: LayerPosition, other: PromptActivations, other_spot: LayerPosition
) -> tuple[float, float, float]:
    """Cosine of two stages' directions and its 95 % interval: a jackknife over groups, on Fisher's scale.

    A bootstrap would add noise to both directions and bias their cosine towards 0.
    """
    value = float(_cosine(one.difference(spot), other.difference(other_spot)))
    keep = (one.group[None] != one.group.unique()[:, None]).double()
    # A group that holds all instructions of one kind cannot be left out.
    keep = keep[[bool(k[one.harmful].any() and k[~one.harmful].any()) for k in keep]]
    n = len(keep)
    if n < 3 or not math.isfinite(value) or abs(value) > 1 - 1e-9:
        return value, math.nan, math.nan
    z = torch.atanh(_cosine(one.difference(spot, keep), other.difference(other_spot, keep)))
    spread = float(((n - 1) / n * (z - z.mean()).square().sum()).sqrt())
    middle, half = math.atanh(value), student_t_quantile(n - 1, 0.95) * spread
    return value, math.tanh(middle - half), math.tanh(middle + half)


def split_half_cosine(one: PromptActivations, spot: LayerPosition, *, times: int = 50, seed: int = 0) -> float:
    """Mean cosine of the directions from two halves of the groups: the effect of noise alone, with half of the data."""
    generator = torch.Generator().manual_seed(seed)
    groups = one.group.unique()
    cosines = []
    for _ in range(times):
        inside = torch.isin(one.group, groups[torch.randperm(len(groups), generator=generator)[: len(groups) // 2]])
        halves = torch.stack([inside, ~inside]).double()
        if all(bool(half[kind].any()) for half in halves for kind in (one.harmful, ~one.harmful)):
            a, b = one.difference(spot, halves)
            cosines.append(float(_cosine(a, b)))
    return sum(cosines) / len(cosines) if cosines else math.nan


def random_cosine_bound(d: int) -> float:
    """97.5 % quantile of the cosine of two random directions, normal approximation."""
    return 1.959964 / math.sqrt(d)


def _cosine(a: Float[Tensor, "*sample d"], b: Float[Tensor, "*sample d"]) -> Float[Tensor, "*sample"]:
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)
