"""Floors beside each probe: the control task, random directions, and the same probe on activations with the concept erased."""

from collections.abc import Mapping, Sequence

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
from ontogeny.statistics.control_tasks import random_directions

_RANDOM_DIRECTIONS = 200
_RANDOM_DIRECTIONS_OFF_STREAM = 50
"""For heads and neurons, of which there are many: their floor is looked at together."""


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
    """The floors of one probe at all sites of a part; erasure is shown for the residual stream."""
    made = []
    if design.y.dtype == torch.bool:
        made += control_task(design, about, method, fitted[method], basis, x, sites)
        made += random_direction_floor(design, about, x, sites, settings)
        if sites[0].part == "resid" and "leace" in fitted:
            made += score_after_erasure(design, about, method, fitted[method], fitted["leace"], x, sites)
    return made


def control_task(
    design: Design,
    about: RowContext,
    method: str,
    fit: Probe,
    basis: PrincipalAxes,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """Accuracy on random labels a word type, where the type was seen in training, and the selectivity it leaves (arXiv:1909.03368)."""
    train, test = design.split.train, design.split.test
    if design.control_y is None:
        nothing = torch.full((len(sites),), torch.nan)
        reason = design.control.reason
        return [
            *site_rows(about, "accuracy", nothing, sites, method=method, control="control_task", reason=reason),
            *site_rows(about, "selectivity", nothing, sites, method=method, reason=reason),
        ]
    usable = test[design.control.usable]
    control = refit_prepared(basis, design.control_y[:, train], fit.facts["strength"])
    guesses = control.scores(x[:, usable]) > 0
    floor = (guesses == design.control_y[:, usable].T).float().mean((1, 2))
    accuracy = separability.accuracy(fit.scores(x[:, test]), design.y_test)
    note = f"types by {design.control.rule}, {len(design.control_y)} tasks"
    return [
        *site_rows(about, "accuracy", floor, sites, method=method, control="control_task", n=len(usable), note=note),
        *site_rows(about, "selectivity", accuracy - floor, sites, method=method, note=note),
    ]


def random_direction_floor(
    design: Design,
    about: RowContext,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
    settings: TraceSettings,
) -> list[Record]:
    """AUROC of random directions, each turned to the side of the positive class's mean in training."""
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
    """The probe on held-out rows from which LEACE, fitted on the training groups, took the concept (arXiv:2306.03819).

    Not a probe fitted anew: on erased training rows that one is constant by the theorem, and its scores would be rounding.
    """
    test = x[:, design.split.test]
    read = eraser.scores(test) - (design.y_train.double().mean() - 0.5)
    held_out = fit.scores(test) - read @ (eraser.facts["removed"].mT @ fit.direction)
    scored = scores.held_out_scores("auroc", held_out, design.y_test, design.weights, design.test_groups)
    return site_rows(about, "auroc", scored.value, sites, method=method, control="leace", interval=scored.interval)
