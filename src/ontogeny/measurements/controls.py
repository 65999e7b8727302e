"""Baselines of each probe: the control task, random directions, and the probe after the concept was erased."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.matmul import matmul
from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.measurements import scores
from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.measurements.design import Design
from ontogeny.measurements.held_out_probe import HeldOutProbe
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics import separability
from ontogeny.probes import Probe, leace, training_masks
from ontogeny.probes.logistic import refit_prepared
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval
from ontogeny.statistics.control_tasks import random_directions, selectivity, type_baseline

_RANDOM_DIRECTIONS = 200
_RANDOM_DIRECTIONS_OFF_STREAM = 50
"""At heads and neurons, which are many and share one baseline in the views."""
_BLOCK = 2**24
"""Projections on random directions that are held at once."""


def probe_control_rows(
    design: Design,
    about: RowContext,
    method: str,
    fitted: Mapping[str, HeldOutProbe],
    held_out: Float[Tensor, "site test k"],
    basis: PrincipalAxes,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
    settings: TraceSettings,
    *,
    cross_fitted: CrossFittedScores | None,
) -> list[Record]:
    """Baselines of one probe at all sites of a part; erasure in the residual stream only."""
    if design.y.dtype != torch.bool:
        return []
    rows = control_task(design, about, method, fitted[method].probe, held_out, basis, x, sites)
    if cross_fitted is None:
        rows += random_direction_floor(design, about, x, sites, settings)
    else:
        rows += trained_random_direction(design, about, method, cross_fitted, x, sites, settings)
    if sites[0].part == "resid" and "leace" in fitted:
        rows += score_after_erasure(design, about, method, fitted[method], fitted["leace"], x, sites)
    return rows


def control_task(
    design: Design,
    about: RowContext,
    method: str,
    fit: Probe,
    held_out: Float[Tensor, "site test k"],
    basis: PrincipalAxes,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """Accuracy on random labels per word type, for types that occur in training, and the selectivity (arXiv:1909.03368)."""
    train, test = design.control_split.train, design.control_split.test
    if design.control_y is None:
        missing, reason = torch.full((len(sites),), torch.nan), design.control.reason
        return [
            *site_rows(about, "accuracy", missing, sites, method=method, control="control_task", reason=reason),
            *site_rows(about, "selectivity", missing, sites, method=method, reason=reason),
        ]
    usable = test[design.control.usable]
    if design.test_folds is None:
        control = refit_prepared(basis, design.control_y[:, train], fit.facts["strength"])
        at = design.control.usable
    else:  # the principal axes are those of all examples
        inside = torch.zeros(x.shape[1], device=x.device).index_fill_(0, train, 1.0).expand(len(design.control_y), -1)
        control = refit_prepared(basis, design.control_y, fit.facts["strength"], weight=inside)
        at = usable
    right = ((control.scores(x[:, usable]) > 0) == design.control_y[:, usable].T).float().permute(2, 0, 1)
    # On the same rows as the control task.
    gain, ends = selectivity(
        separability.correct(held_out[:, at], design.y[usable]),
        right,
        design.weights if len(usable) == design.weights.shape[1] else design.weights[:, at],
        groups=len(design.groups[usable].unique()),
    )
    by_type = type_baseline(design.control, design.y, train, test)
    coords = {"type_accuracy": f"{by_type.accuracy:.4f}", "types_predict": str(by_type.predicts).lower()}
    note = f"types by {design.control.rule}, {len(design.control_y)} tasks"
    columns: dict[str, Any] = {"method": method, "n": len(usable), "note": note, "coords": coords}
    return [
        *site_rows(about, "accuracy", right.mean((0, 2)), sites, control="control_task", **columns),
        *site_rows(about, "selectivity", gain.to(x), sites, interval=ends, **columns),
    ]


def random_direction_floor(
    design: Design,
    about: RowContext,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
    settings: TraceSettings,
) -> list[Record]:
    """AUROC of random directions, each signed by the difference of the class means in training."""
    count = _RANDOM_DIRECTIONS if sites[0].part == "resid" else _RANDOM_DIRECTIONS_OFF_STREAM
    directions = random_directions(x.shape[-1], count=count, seed=settings.seed).T.to(x)
    train, test, y = x[:, design.split.train], x[:, design.split.test], design.y_train
    gap = (train[:, y].mean(1) - train[:, ~y].mean(1)) @ directions
    turned = (test @ (directions * gap.sign()[:, None])).transpose(1, 2)
    found = separability.auroc(turned, design.y_test)
    spread = found.double().nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64, device=x.device), dim=1).to(x)
    note = f"{count} directions; low and high hold 95 % of them"
    ends = Interval(low=spread[0], high=spread[1])
    return site_rows(
        about, "auroc", found.nanmean(1), sites, method="random", control="random_direction", interval=ends, note=note
    )


def trained_random_direction(
    design: Design,
    about: RowContext,
    method: str,
    probe: CrossFittedScores,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
    settings: TraceSettings,
) -> list[Record]:
    """AUROC of the random direction that separates the training groups best, and how much the probe exceeds it, paired.

    It is chosen like a probe: on the training side of each fold, among many, by the difference of the class means over the spread.

    Args:
        probe: Scores that are compared with it.
    """
    count = _RANDOM_DIRECTIONS if sites[0].part == "resid" else _RANDOM_DIRECTIONS_OFF_STREAM
    directions = random_directions(x.shape[-1], count=count, seed=settings.seed).T.to(x)
    size = max(1, _BLOCK // (x.shape[1] * count))
    chosen = torch.cat([_scores_of_best_direction(design, block, directions) for block in x.split(size)])
    best = replace(probe, values=chosen, method="")
    floor, floor_ends = scores.design_scores("auroc", chosen, design, best)
    excess, ends = probe.excess(best)
    note = f"the best of {count} on the training groups"
    columns: dict[str, Any] = {"control": "random_direction", "note": note}
    return [
        *site_rows(about, "auroc", floor, sites, method="random", interval=floor_ends, **columns),
        *site_rows(about, "auroc_excess", excess, sites, method=method, interval=ends, **columns),
    ]


def _scores_of_best_direction(
    design: Design, x: Float[Tensor, "site example d"], directions: Float[Tensor, "d direction"]
) -> Float[Tensor, "site example 1"]:
    """Score of each example by the direction that separates the classes best in the other folds."""
    folds, y = design.test_folds, design.y
    assert folds is not None
    projected = matmul(x - x.mean(1, keepdim=True), directions.expand(len(x), -1, -1).contiguous())
    masks = training_masks(folds).to(x)
    sums, squares, ones = (
        torch.stack([(masks * side) @ values for side in (y.to(x), (~y).to(x))])
        for values in (projected, projected.square(), torch.ones_like(projected[:1, :, :1]))
    )
    means = sums / ones
    spread = ((squares / ones - means.square()).sum(0)).clamp(min=1e-30).sqrt()
    separation = (means[0] - means[1]) / spread  # [site, fold, direction]
    best = separation.abs().argmax(2)
    sign = separation.gather(2, best[..., None])[..., 0].sign()
    return projected.gather(2, best[:, folds][..., None]) * sign[:, folds][..., None]


def score_after_erasure(
    design: Design,
    about: RowContext,
    method: str,
    fit: HeldOutProbe,
    eraser: HeldOutProbe,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """AUROC of the probe on held-out activations after LEACE, fitted on the training groups (arXiv:2306.03819).

    The probe is not fitted again: on erased training activations a new one is constant, by LEACE's theorem.
    """
    columns: dict[str, Any] = {"method": method, "control": "leace"}
    if fit.folds is None or eraser.folds is None or design.test_folds is None:
        test = x[:, design.split.test]
        held_out = _erased_scores(fit.probe, eraser.probe, test, design.y_train)
    else:
        held_out = x.new_empty(*x.shape[:2], 1)
        for fold, mask in enumerate(training_masks(design.test_folds)):
            one, other = fit.folds.fold(fold), eraser.folds.fold(fold)
            held_out[:, ~mask] = _erased_scores(one, other, x[:, ~mask], design.y[mask]).to(x)
        share = float(mask.sum()) / x.shape[-1]
        columns["note"] = f"shrinkage {leace.SHRINK:g}, {share:.2g} training examples per dimension"
    cross_fitted = scores.cross_fitted_scores(held_out, design, width=x.shape[-1])
    value, ends = scores.design_scores("auroc", held_out, design, cross_fitted)
    return site_rows(about, "auroc", value, sites, interval=ends, **columns)


def _erased_scores(
    fit: Probe, eraser: Probe, test: Float[Tensor, "site test d"], y_train: Tensor
) -> Float[Tensor, "site test k"]:
    read = eraser.scores(test) - (y_train.double().mean() - 0.5)
    return fit.scores(test) - read @ (eraser.facts["removed"].mT @ fit.direction)
