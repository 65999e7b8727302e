"""Least-squares maps from the activation space of one model into that of another (Emb2Emb, arXiv:2503.21073).

Pairs are embeddings of token strings in both vocabularies, or activations of the same words in both models. The strength of the ridge
is chosen on held-out strings or texts; then the map is fitted on all pairs.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput

RIDGE_STRENGTHS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Added to the diagonal, as shares of the mean variance of a source dimension."""
_HELD_OUT_SHARE = 0.2
MIN_MAP_PAIRS = 20


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Maps x to `(x − mean) @ matrix + target mean`; for a direction the matrix is enough."""

    matrix: Float[Tensor, "source target"]
    strength: float
    r2: float
    """Explained variance of held-out pairs, all dimensions together."""
    pairs: int

    def apply(self, vector: Float[Tensor, " source"]) -> Float[Tensor, " target"]:
        """Map a direction into the space of the target."""
        return (vector.double() @ self.matrix.double()).to(vector)


def fit_linear_map(
    source: Float[Tensor, "pair source"],
    target: Float[Tensor, "pair target"],
    groups: Int[Tensor, " pair"] | None = None,
    *,
    seed: int = 0,
) -> LinearMap:
    """Fit on pairs of rows; pairs of one group, such as the words of a text, are held out together.

    Raises:
        BadInput: there are fewer than `MIN_MAP_PAIRS` pairs.
    """
    if len(source) < MIN_MAP_PAIRS:
        raise BadInput(
            f"a map must have at least {MIN_MAP_PAIRS} pairs, got {len(source)}: give more texts, or models that share more tokens."
        )
    groups = torch.arange(len(source)) if groups is None else groups
    distinct, member = groups.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))
    held = (order < max(1, round(_HELD_OUT_SHARE * len(distinct))))[member]
    x, y = source.double(), target.double()
    errors = [
        _r2(_solve(x[~held], y[~held], strength), x[~held], y[~held], x[held], y[held]) for strength in RIDGE_STRENGTHS
    ]
    best = max(range(len(RIDGE_STRENGTHS)), key=lambda i: errors[i])
    return LinearMap(_solve(x, y, RIDGE_STRENGTHS[best]).float(), RIDGE_STRENGTHS[best], errors[best], len(source))


def _solve(x: Tensor, y: Tensor, strength: float) -> Tensor:
    x, y = x - x.mean(0), y - y.mean(0)
    # Without a ridge the matrix is singular if there are few pairs; the smallest ridge is at the level of rounding errors.
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
    """A map fitted on shuffled pairs, as a null."""
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    return LinearMap(
        _solve(source.double(), target[order].double(), strength).float(), strength, float("nan"), len(source)
    )


def random_map(source: int, target: int, *, seed: int = 0) -> LinearMap:
    """A Gaussian matrix, as a null."""
    drawn = torch.randn(source, target, generator=torch.Generator().manual_seed(seed))
    return LinearMap(drawn / source**0.5, 0.0, float("nan"), 0)


def identity_map(source: int, target: int) -> LinearMap:
    """The vector as it is, cut or filled with zeros to the target's width: a null without any map."""
    return LinearMap(torch.eye(source, target), 0.0, float("nan"), 0)
