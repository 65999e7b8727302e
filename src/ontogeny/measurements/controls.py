"""Baselines of each probe: the control task, random directions, and the probe after the concept was erased."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.measurements import scores
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics import separability
from ontogeny.probes import Probe
from ontogeny.probes.logistic import refit_prepared
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval
from ontogeny.statistics.control_tasks import random_directions, selectivity, type_baseline

_RANDOM_DIRECTIONS = 200
_RANDOM_DIRECTIONS_OFF_STREAM = 50
"""At heads and neurons, which are many and share one baseline in the views."""


def probe_control_rows(
    design: Design,
    about: RowContext,
    method: str,
    fitted: Mapping[str, Probe],
    basis: PrincipalAxes,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
    settings: TraceSettings,
) -> list[Record]:
    """Baselines of one probe at all sites of a part; erasure in the residual stream only."""
    if design.y.dtype != torch.bool:
        return []
    rows = control_task(design, about, method, fitted[method], basis, x, sites)
    rows += random_direction_floor(design, about, x, sites, settings)
    if sites[0].part == "resid" and "leace" in fitted:
        rows += score_after_erasure(design, about, method, fitted[method], fitted["leace"], x, sites)
    return rows


def control_task(
    design: Design,
    about: RowContext,
    method: str,
    fit: Probe,
    basis: PrincipalAxes,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """Accuracy on random labels per word type, for types that occur in training, and the selectivity (arXiv:1909.03368)."""
    train, test = design.split.train, design.split.test
    if design.control_y is None:
        missing, reason = torch.full((len(sites),), torch.nan), design.control.reason
        return [
            *site_rows(about, "accuracy", missing, sites, method=method, control="control_task", reason=reason),
            *site_rows(about, "selectivity", missing, sites, method=method, reason=reason),
        ]
    usable = test[design.control.usable]
    control = refit_prepared(basis, design.control_y[:, train], fit.facts["strength"])
    right = ((control.scores(x[:, usable]) > 0) == design.control_y[:, usable].T).float().permute(2, 0, 1)
    # On the same rows as the control task.
    gain, ends = selectivity(
        scores.correct(fit.scores(x[:, usable]), design.y[usable]),
        right,
        design.weights[:, design.control.usable],
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


def score_after_erasure(
    design: Design,
    about: RowContext,
    method: str,
    fit: Probe,
    eraser: Probe,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """AUROC of the probe on held-out activations after LEACE, fitted on the training groups (arXiv:2306.03819).

    The probe is not fitted again: on erased training activations a new one is constant, by LEACE's theorem.
    """
    test = x[:, design.split.test]
    read = eraser.scores(test) - (design.y_train.double().mean() - 0.5)
    held_out = fit.scores(test) - read @ (eraser.facts["removed"].mT @ fit.direction)
    scored = scores.held_out_scores("auroc", held_out, design.y_test, design.weights, design.test_groups)
    return site_rows(about, "auroc", scored.value, sites, method=method, control="leace", interval=scored.interval)
