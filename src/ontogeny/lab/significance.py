"""Is a cell of the heat map above chance, given how many cells were looked at? One set of permutations serves them all."""

from collections.abc import Sequence

import torch

from ontogeny.lab import scoring
from ontogeny.lab.design import Design
from ontogeny.lab.rows import About, cells
from ontogeny.lab.visits import Visit, at_visit, common_methods
from ontogeny.records import Record
from ontogeny.run import Run
from ontogeny.statistics.fdr import q_values
from ontogeny.statistics.permutation import familywise_p, null_maxima, p_values

METHODS = ("logistic", "ridge", "mass_mean")


def rows(run: Run, design: Design, visits: Sequence[Visit], seed: int) -> list[Record]:
    """For each cell p against the permutation maximum over all steps and sites, and the Benjamini–Hochberg q of its own p."""
    about = About(design.concept.name, str(design.concept.position), len(design.split.test), seed)
    metric, y = scoring.metrics_of(design.concept.kind)[0], design.y_test
    made: list[Record] = []
    for method in (m for m in common_methods(visits) if m in METHODS):
        places, observed, single = [], [], []
        maxima = torch.full((len(design.permutations),), -torch.inf, dtype=torch.float64)
        for visit in visits:
            scores = run.scores(visit.unit)
            for part, sites in visit.sites.items():
                held_out = scores[f"{method}/{part}"]
                null = scoring.null(metric, held_out, y, design.permutations).double()
                value = scoring.point(metric, held_out, y).double()
                maxima = torch.maximum(maxima, null_maxima(null))
                places.append((visit, sites))
                observed.append(value)
                single.append(p_values(value, null))
        p, q = familywise_p(torch.cat(observed), maxima), q_values(torch.cat(single))
        note = f"{len(maxima)} permutations, {len(p)} cells"
        lengths = [len(sites) for _, sites in places]
        for name, values in (("p_familywise", p), ("q", q)):
            for (visit, sites), mine in zip(places, values.split(lengths), strict=True):
                told = cells(
                    about, name, mine, sites, method=method, note=note, reason="the score could not be computed"
                )
                made += at_visit(visit, told)
    return made
