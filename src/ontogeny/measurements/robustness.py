"""Robustness over training: how often a probe reads a held-out text and its perturbed twin differently, at every site and checkpoint."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.paired_flips import flip_rates, pair_indices


def robustness_rows(
    design: Design, about: RowContext, method: str, held_out: Float[Tensor, "site test k"], sites: Sequence[Site]
) -> list[Record]:
    """`flip_rate` and `perturbed_drop` of a probe, where the groups of the concept are twins; a group is never divided by a split."""
    if not design.concept.twins or design.concept.kind == "number":
        return []
    order = design.split.test.argsort()  # the clean one comes first in the concept's own order
    pairs = pair_indices(design.groups[design.split.test][order].cpu())
    scores = held_out[:, order].cpu()
    predicted = scores[..., 0] > 0 if design.concept.kind == "binary" else scores.argmax(-1)
    if len(pairs) < 2:
        lost = scores.new_full((len(sites),), float("nan")).float()
        reason = f"{len(pairs)} held-out groups of two twins; at least two are needed"
        return [
            row
            for metric in ("flip_rate", "perturbed_drop")
            for row in site_rows(about, metric, lost, sites, method=method, reason=reason)
        ]
    found = flip_rates(predicted, design.y_test[order].cpu(), pairs, samples=len(design.weights), seed=about.seed)
    told = (("flip_rate", found.rate, found.rate_ends), ("perturbed_drop", found.drop, found.drop_ends))
    return [
        row
        for metric, value, ends in told
        for row in site_rows(about, metric, value, sites, method=method, interval=ends, n=len(pairs))
    ]
