"""Closed forms of ROME (arXiv:2202.05262), MEMIT (arXiv:2210.07229) and AlphaEdit (arXiv:2410.02355), in float64.

An update of a map `k W` is `left @ residuals`: one column of `left` and one residual for each fact. Each function gives `left`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput


def rome_keys(
    second_moment: Float[Tensor, "inside inside"], key: Float[Tensor, " inside"]
) -> Float[Tensor, "inside 1"]:
    """C⁻¹k / kᵀC⁻¹k: the key maps to exactly its new value, and the outputs for all other keys change least in the mean.

    Raises:
        BadInput: a second moment that is singular, or a key of zeros.
    """
    solved = _solve(second_moment, key[:, None])
    scale = float(key @ solved[:, 0])
    if scale <= 0:
        raise BadInput("the edited token has an MLP input of zeros: edit another layer or another token.")
    return solved / scale


def memit_keys(
    second_moment: Float[Tensor, "inside inside"], keys: Float[Tensor, "inside fact"], preservation: float
) -> Float[Tensor, "inside fact"]:
    """(λC + KKᵀ)⁻¹K with λ = `preservation` · inside: least squares of the new values, weighted against the values of all keys.

    A key of average kᵀC⁻¹k, which is `inside`, moves by 1 / (1 + `preservation`) of the way.

    Raises:
        BadInput: a second moment that is singular.
    """
    return _solve(torch.addmm(second_moment, keys, keys.T, beta=preservation * len(keys)), keys)


def alphaedit_keys(
    projector: Float[Tensor, "inside inside"],
    previous: Float[Tensor, "inside earlier"],
    keys: Float[Tensor, "inside fact"],
    damping: float,
) -> Float[Tensor, "inside fact"]:
    """(P(KₚKₚᵀ + KKᵀ) + λI)⁻¹PK with λ = `damping` · mean ‖Pk‖²: the update stays in the null space of the preserved keys.

    The paper has λ = 1, which means another thing in each model; this one is a share of the edited keys themselves. With A = [Kₚ K] it is
    the last columns of PA(AᵀPA + λI)⁻¹, a system of as many rows as there are keys.

    Args:
        previous: Kₚ, the keys of the edits before in the same session.

    Raises:
        BadInput: a key outside the null space, which then cannot be edited.
    """
    every = torch.cat([previous, keys], dim=1)
    inside = projector @ every
    sizes = inside[:, previous.shape[1] :].square().sum(0)
    if bool((sizes <= 1e-12 * keys.square().sum(0)).any()):
        raise BadInput(
            "the edited token lies outside the null space of the preserved keys, so that no edit there reaches it: raise `null_share`."
        )
    system = inside.T @ inside  # AᵀPA, since P is a projector
    system.diagonal().add_(damping * float(sizes.mean()))
    last = torch.zeros(every.shape[1], keys.shape[1], dtype=keys.dtype)
    last[previous.shape[1] :].fill_diagonal_(1)
    solved: Tensor = inside @ torch.linalg.solve(system, last)
    return solved


@dataclass(frozen=True, eq=False)
class NullSpace:
    """Directions that the preserved keys hardly use."""

    projector: Float[Tensor, "inside inside"]
    rank: int
    trace_share: float
    """Share of the keys' mean squared norm inside it; 0 for a true null space."""


def null_space(second_moment: Float[Tensor, "inside inside"], share: float) -> NullSpace:
    """The `share` of all eigenvectors with the smallest eigenvalues: a share of the rank, since the scale of eigenvalues is the model's."""
    values, vectors = torch.linalg.eigh(second_moment)
    rank = max(1, round(share * len(values)))
    basis = vectors[:, :rank]
    trace = float(values.clamp(min=0).sum())
    return NullSpace(basis @ basis.T, rank, float(values[:rank].clamp(min=0).sum()) / trace if trace > 0 else 0.0)


def _solve(matrix: Tensor, keys: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(matrix)
    least, most = factor.diagonal().aminmax()
    if int(failed) or float(least) <= 1e-8 * float(most):
        raise BadInput(
            f"the second moment of the {len(matrix)} neurons is singular: give more or longer texts, or set `ridge` above 0."
        )
    solved: Tensor = torch.cholesky_solve(keys, factor)
    return solved
