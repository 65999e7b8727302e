"""Significance of every cell of the heat map, corrected for the number of cells, from one set of permutations."""

from collections.abc import Sequence

import torch

from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, common_methods
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import site_rows
from ontogeny.measurements.scores import metrics_for, permutation_scores, score
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.statistics.fdr import q_values
from ontogeny.statistics.permutation import familywise_p, null_maxima, p_values
from ontogeny.storage.run import Run

_SIGNIFICANCE_METHODS = ("logistic", "ridge", "mass_mean")


def significance_rows(run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], seed: int) -> list[Record]:
    """Family-wise p of each cell, against the permutation maximum over all steps and sites, and its Benjamini–Hochberg q."""
    about = design.row_context(seed)
    metric, y = metrics_for(design.concept.kind)[0], design.y_test
    made: list[Record] = []
    for method in (m for m in common_methods(visits) if m in _SIGNIFICANCE_METHODS):
        places, observed, single = [], [], []
        maxima = torch.full((len(design.permutations),), -torch.inf, dtype=torch.float64)
        for visit in visits:
            scores = run.scores(visit.unit)
            for part, sites in visit.sites.items():
                held_out = scores[f"{method}/{part}"]
                null = permutation_scores(metric, held_out, y, design.permutations).double()
                value = score(metric, held_out, y).double()
                maxima = torch.maximum(maxima, null_maxima(null))
                places.append((visit, sites))
                observed.append(value)
                single.append(p_values(value, null))
        p, q = familywise_p(torch.cat(observed), maxima), q_values(torch.cat(single))
        note = f"{len(maxima)} permutations, {len(p)} cells"
        lengths = [len(sites) for _, sites in places]
        for name, values in (("p_familywise", p), ("q", q)):
            for (visit, sites), cells in zip(places, values.split(lengths), strict=True):
                reason = "the score could not be computed"
                rows = site_rows(about, name, cells, sites, method=method, note=note, reason=reason)
                made += stamp_checkpoint(rows, visit)
    return made
