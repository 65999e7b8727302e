"""Floors beside each probe: the control task, random directions, and the same probe on activations with the concept erased."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.fits import Fitted
from ontogeny.fits._basis import Basis
from ontogeny.fits.logistic import refit_in
from ontogeny.lab import scoring
from ontogeny.lab.design import Design
from ontogeny.lab.rows import About, cells
from ontogeny.lab.settings import Settings
from ontogeny.metrics import separability
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval
from ontogeny.statistics.controls import random_directions

RANDOM_DIRECTIONS = 200
RANDOM_DIRECTIONS_ELSEWHERE = 50
"""For heads and neurons, of which there are many: their floor is looked at together."""


def rows(
    design: Design,
    about: About,
    method: str,
    fitted: Mapping[str, Fitted],
    basis: Basis,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
    settings: Settings,
) -> list[Record]:
    """The floors of one probe at all sites of a part; erasure is shown for the residual stream."""
    made = []
    if design.y.dtype == torch.bool:
        made += control_task(design, about, method, fitted[method], basis, x, sites)
        made += random_floor(design, about, x, sites, settings)
        if sites[0].part == "resid" and "leace" in fitted:
            made += erased(design, about, method, fitted[method], fitted["leace"], x, sites)
    return made


def control_task(
    design: Design,
    about: About,
    method: str,
    fit: Fitted,
    basis: Basis,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """Accuracy on random labels a word type, where the type was seen in training, and the selectivity it leaves (arXiv:1909.03368)."""
    train, test = design.split.train, design.split.test
    if design.control_y is None:
        nothing = torch.full((len(sites),), torch.nan)
        reason = design.control.reason
        return [
            *cells(about, "accuracy", nothing, sites, method=method, control="control_task", reason=reason),
            *cells(about, "selectivity", nothing, sites, method=method, reason=reason),
        ]
    usable = test[design.control.usable]
    control = refit_in(basis, design.control_y[:, train], fit.facts["strength"])
    guesses = control.scores(x[:, usable]) > 0
    floor = (guesses == design.control_y[:, usable].T).float().mean((1, 2))
    accuracy = separability.accuracy(fit.scores(x[:, test]), design.y_test)
    note = f"types by {design.control.rule}, {len(design.control_y)} tasks"
    return [
        *cells(about, "accuracy", floor, sites, method=method, control="control_task", n=len(usable), note=note),
        *cells(about, "selectivity", accuracy - floor, sites, method=method, note=note),
    ]


def random_floor(
    design: Design, about: About, x: Float[Tensor, "site example d"], sites: Sequence[Site], settings: Settings
) -> list[Record]:
    """AUROC of random directions, each turned to the side of the positive class's mean in training."""
    count = RANDOM_DIRECTIONS if sites[0].part == "resid" else RANDOM_DIRECTIONS_ELSEWHERE
    directions = random_directions(x.shape[-1], count=count, seed=settings.seed).T.to(x)
    train, test, y = x[:, design.split.train], x[:, design.split.test], design.y_train
    gap = (train[:, y].mean(1) - train[:, ~y].mean(1)) @ directions
    turned = (test @ (directions * gap.sign()[:, None])).transpose(1, 2)
    found = separability.auroc(turned, design.y_test)
    spread = found.double().nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64, device=x.device), dim=1).to(x)
    note = f"{count} directions; low and high hold 95 % of them"
    ends = Interval(low=spread[0], high=spread[1])
    return cells(
        about, "auroc", found.nanmean(1), sites, method="random", control="random_direction", interval=ends, note=note
    )


def erased(
    design: Design,
    about: About,
    method: str,
    fit: Fitted,
    eraser: Fitted,
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """The probe on held-out rows from which LEACE, fitted on the training groups, took the concept (arXiv:2306.03819).

    Not a probe fitted anew: on erased training rows that one is constant by the theorem, and its scores would be rounding.
    """
    test = x[:, design.split.test]
    read = eraser.scores(test) - (design.y_train.double().mean() - 0.5)
    held_out = fit.scores(test) - read @ (eraser.facts["removed"].mT @ fit.direction)
    value = scoring.point("auroc", held_out, design.y_test)
    ends = scoring.interval(
        "auroc", value, scoring.samples("auroc", held_out, design.y_test, design.weights), design.test_groups
    )
    return cells(about, "auroc", value, sites, method=method, control="leace", interval=ends)
