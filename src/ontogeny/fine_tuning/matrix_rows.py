"""Rows of each matrix: norm and rank of ΔW, its alignment with the base's column and row space, and its response to the requests."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.fine_tuning.null_changes import gradient_change, random_change
from ontogeny.fine_tuning.requests import Requests
from ontogeny.fine_tuning.settings import WeightChangeSettings
from ontogeny.fine_tuning.subspaces import SingularVectors, aligned_share, random_aligned_shares, singular_vectors
from ontogeny.fine_tuning.weight_differences import BlockMatrix
from ontogeny.records import Record, StageRowBuilder
from ontogeny.statistics.bootstrap import interval_ends
from ontogeny.statistics.nulls import null_interval

RANDOM, GRADIENT = "random_change", "neutral_gradient"
_METRICS = ("weight_change_norm", "weight_change_rank", "column_alignment", "row_alignment", "response_ratio")


@dataclass(frozen=True, eq=False)
class MatrixChange:
    """The change of one matrix from the base to the tuned stage."""

    base: BlockMatrix
    difference: Float[Tensor, "out in"]
    gradient: Float[Tensor, "out in"]
    """Gradient of the base's loss on neutral texts."""

    @cached_property
    def values(self) -> Float[Tensor, " r"]:
        """Singular values of the difference that are not rounding errors."""
        return singular_vectors(self.difference, 1.0).values

    @cached_property
    def unrelated(self) -> SingularVectors:
        """Singular vectors of the gradient."""
        return singular_vectors(self.gradient, 1.0)


def matrix_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    change: MatrixChange,
    inputs: Float[Tensor, "request in"],
    requests: Requests,
    settings: WeightChangeSettings,
) -> Iterator[Record]:
    """Rows of one matrix.

    Args:
        stage: The tuned stage.
        other: Its base.
        inputs: What the tuned stage puts into the matrix at the last token of each request.
    """
    base, table = change.base, replace(table, site=change.base.site)
    coords: dict[str, Any] = {"matrix": base.path}
    delta, weight = change.difference.float(), base.weight.float()
    top = singular_vectors(delta, settings.share)
    if not top.rank:
        for metric in _METRICS:
            yield table.row(metric, math.nan, stage, other, n=0, reason="the matrix did not change", **coords)
        return
    small = min(delta.shape)
    norm = float(delta.norm() / weight.norm())
    reason = "the base's matrix is zero"
    yield table.row("weight_change_norm", norm, stage, other, n=delta.numel(), reason=reason, **coords)
    yield table.row("weight_change_rank", top.rank, stage, other, n=small, share=f"{top.rank / small:.4f}", **coords)
    generator = torch.Generator().manual_seed(settings.seed)
    noise = singular_vectors(torch.randn(delta.shape, generator=generator), settings.share)
    coords_of_noise: dict[str, Any] = {**coords, "share": f"{noise.rank / small:.4f}"}
    yield table.row("weight_change_rank", noise.rank, stage, other, n=small, control="gaussian", **coords_of_noise)
    yield from _alignment_rows(table, stage, other, change, top, settings, coords)
    yield from _response_rows(table, stage, other, change, inputs, requests, settings, coords)


def _alignment_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    change: MatrixChange,
    top: SingularVectors,
    settings: WeightChangeSettings,
    coords: Mapping[str, Any],
) -> Iterator[Record]:
    space = singular_vectors(change.base.weight, settings.share)
    gradient = change.unrelated
    sides = (
        ("column_alignment", top.left, space.left, gradient.left),
        ("row_alignment", top.right, space.right, gradient.right),
    )
    for metric, vectors, basis, unrelated in sides:
        d, k = basis.shape
        own = {**coords, "dimensions": d, "space": k}
        why = f"the base's space has all {d} dimensions, so that every change lies in it" if k == d else None
        value = aligned_share(vectors, top.values, basis)
        yield table.row(metric, value, stage, other, n=top.rank, note=why, **own)
        draws = random_aligned_shares(top.values, d, k, draws=settings.draws, seed=settings.seed)
        yield _random_row(table, metric, stage, other, draws, own)
        rank = min(top.rank, unrelated.shape[1])
        value = aligned_share(unrelated[:, :rank], top.values[:rank], basis)
        yield table.row(
            metric,
            value,
            stage,
            other,
            n=rank,
            control=GRADIENT,
            reason="the loss on neutral texts has no gradient here",
            **own,
        )


def _random_row(
    table: StageRowBuilder,
    metric: str,
    stage: str,
    other: str,
    draws: Float[Tensor, " draw"],
    coords: Mapping[str, Any],
) -> Record:
    """The null of a metric: its mean over random changes of equal rank and norm."""
    return table.row(
        metric,
        float(draws.mean()),
        stage,
        other,
        n=len(draws),
        ends=null_interval(draws),
        control=RANDOM,
        note="random directions of equal rank and norm; low to high: 95 % of them",
        **coords,
    )


def _response_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    change: MatrixChange,
    inputs: Float[Tensor, "request in"],
    requests: Requests,
    settings: WeightChangeSettings,
    coords: Mapping[str, Any],
) -> Iterator[Record]:
    """How much more ΔW responds to harmful than to harmless requests."""
    values = change.values
    generator = torch.Generator().manual_seed(settings.seed)
    shape = change.difference.shape
    value, samples = response_ratio(change.difference, inputs, requests)
    groups = min(requests.count(kind) for kind in ("harmful", "harmless"))
    reason = "the change does not respond to the requests"
    ends = interval_ends(value, samples, groups=groups)
    yield table.row("response_ratio", value, stage, other, n=len(inputs), ends=ends, reason=reason, **coords)
    drawn = torch.tensor(
        [
            response_ratio(random_change(values, shape, generator), inputs, requests)[0]
            for _ in range(4 * settings.random_changes)
        ],
        dtype=torch.float64,
    )
    yield _random_row(table, "response_ratio", stage, other, drawn, coords)
    if change.unrelated.rank:
        value, _ = response_ratio(gradient_change(values, change.unrelated), inputs, requests)
    else:
        value = math.nan
    reason = "the loss on neutral texts has no gradient here"
    yield table.row("response_ratio", value, stage, other, n=len(inputs), control=GRADIENT, reason=reason, **coords)


def response_ratio(
    change: Float[Tensor, "out in"], inputs: Float[Tensor, "request in"], requests: Requests
) -> tuple[float, Float[Tensor, " sample"]]:
    """log₂ of the mean of ‖ΔW a‖/‖a‖ over harmful requests over that over harmless ones, and its bootstrap samples."""
    response = (inputs @ change.float().cpu().T).norm(dim=1).double() / inputs.norm(dim=1).double()
    (harmful, drawn), (harmless, other) = (requests.mean(response, kind) for kind in ("harmful", "harmless"))
    if not harmful > 0 or not harmless > 0:
        return math.nan, torch.full_like(drawn, torch.nan)
    return math.log2(harmful / harmless), (drawn / other).log2()
