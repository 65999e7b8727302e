"""A linear map from one model's space into another's, by least squares on what both have seen (Emb2Emb, arXiv:2503.21073).

On the embeddings of token strings that both vocabularies hold, or on the activations of texts that both have read. The strength of the
ridge is chosen on held-out strings or texts; then all pairs are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput

RIDGE_STRENGTHS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Shares of the mean variance of a source dimension that are added to its diagonal."""
_HELD_OUT_SHARE = 0.2
MIN_MAP_PAIRS = 20
"""Pairs, at least."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """`(x − mean) @ matrix` is where x lies in the other model, about its own mean; a direction needs the matrix alone."""

    matrix: Float[Tensor, "source target"]
    strength: float
    r2: float
    """Explained variance of held-out pairs, all dimensions together."""
    pairs: int

    def carried(self, vector: Float[Tensor, " source"]) -> Float[Tensor, " target"]:
        """A direction of the source in the space of the target."""
        return (vector.double() @ self.matrix.double()).to(vector)


def fit_linear_map(
    source: Float[Tensor, "pair source"],
    target: Float[Tensor, "pair target"],
    groups: Int[Tensor, " pair"] | None = None,
    *,
    seed: int = 0,
) -> LinearMap:
    """Least squares on pairs of rows; pairs of one group (the words of a text) are held out together.

    Raises:
        BadInput: too few pairs.
    """
    if len(source) < MIN_MAP_PAIRS:
        raise BadInput(
            f"{len(source)} pairs cannot fit a map, it takes {MIN_MAP_PAIRS}. Give more texts, or models that share more tokens."
        )
    groups = torch.arange(len(source)) if groups is None else groups
    told, member = groups.unique(return_inverse=True)
    order = torch.randperm(len(told), generator=torch.Generator().manual_seed(seed))
    held = (order < max(1, round(_HELD_OUT_SHARE * len(told))))[member]
    x, y = source.double(), target.double()
    errors = [
        _r2(_solve(x[~held], y[~held], strength), x[~held], y[~held], x[held], y[held]) for strength in RIDGE_STRENGTHS
    ]
    best = max(range(len(RIDGE_STRENGTHS)), key=lambda i: errors[i])
    return LinearMap(_solve(x, y, RIDGE_STRENGTHS[best]).float(), RIDGE_STRENGTHS[best], errors[best], len(source))


def _solve(x: Tensor, y: Tensor, strength: float) -> Tensor:
    x, y = x - x.mean(0), y - y.mean(0)
    # A ridge of nothing would be singular where pairs are few: the smallest one is that of rounding.
    share = max(strength, 1e-12) * float(x.square().sum()) / x.shape[1]
    gram = x.T @ x + share * torch.eye(x.shape[1], dtype=x.dtype)
    solved: Tensor = torch.linalg.solve(gram, x.T @ y)
    return solved


def _r2(matrix: Tensor, x: Tensor, y: Tensor, x_held: Tensor, y_held: Tensor) -> float:
    left = y_held - y.mean(0) - (x_held - x.mean(0)) @ matrix
    return float(1 - left.square().sum() / (y_held - y.mean(0)).square().sum())


def fit_shuffled_map(
    source: Float[Tensor, "pair source"], target: Float[Tensor, "pair target"], strength: float, *, seed: int = 0
) -> LinearMap:
    """The same with the pairs mixed up: it knows both clouds and not who belongs to whom."""
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    return LinearMap(
        _solve(source.double(), target[order].double(), strength).float(), strength, float("nan"), len(source)
    )


def random_map(source: int, target: int, *, seed: int = 0) -> LinearMap:
    """A Gaussian matrix."""
    drawn = torch.randn(source, target, generator=torch.Generator().manual_seed(seed))
    return LinearMap(drawn / source**0.5, 0.0, float("nan"), 0)


def shared_token_strings(
    one: Mapping[str, int], other: Mapping[str, int], special: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """Ids of the token strings that two vocabularies share, each with the other's; the marks for a space count as one."""
    left, right = _normalised_strings(one, special), _normalised_strings(other, special)
    return [(left[string], right[string]) for string in sorted(left.keys() & right.keys())]


def _normalised_strings(vocabulary: Mapping[str, int], special: Sequence[str]) -> dict[str, int]:
    return {string.replace("▁", " ").replace("Ġ", " "): i for string, i in vocabulary.items() if string not in special}
