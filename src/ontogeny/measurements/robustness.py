"""Robustness: how often a probe's prediction differs between a held-out text and its perturbed copy."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval
from ontogeny.statistics.paired_flips import flip_rates, pair_indices


def robustness_rows(
    design: Design, about: RowContext, method: str, held_out: Float[Tensor, "site test k"], sites: Sequence[Site]
) -> list[Record]:
    """`flip_rate` and `perturbed_drop` of a probe, if the groups of the concept are pairs of a text and its perturbed copy."""
    if not design.concept.twins or design.concept.kind == "number":
        return []
    order = design.split.test.argsort()  # the concept lists the clean text first
    pairs = pair_indices(design.groups[design.split.test][order].cpu())
    scores = held_out[:, order].cpu()
    predicted = scores[..., 0] > 0 if design.concept.kind == "binary" else scores.argmax(-1)
    if len(pairs) < 2:
        missing = scores.new_full((len(sites),), float("nan")).float()
        reason = f"{len(pairs)} held-out groups of two twins; at least two are needed"
        return [
            row
            for metric in ("flip_rate", "perturbed_drop")
            for row in site_rows(about, metric, missing, sites, method=method, reason=reason)
        ]
    flips = flip_rates(predicted, design.y_test[order].cpu(), pairs, samples=len(design.weights), seed=about.seed)
    # A probe without a direction predicts nothing, so it would seem never to flip.
    known = ~scores.isnan().flatten(1).any(1)
    rows = partial(site_rows, about, sites=sites, method=method, n=len(pairs))
    return [
        row
        for metric, value, ends in (
            ("flip_rate", flips.rate, flips.rate_interval),
            ("perturbed_drop", flips.drop, flips.drop_interval),
        )
        for row in rows(
            metric,
            value.where(known, torch.nan),
            interval=Interval(ends.low.where(known, torch.nan), ends.high.where(known, torch.nan)),
        )
    ]
