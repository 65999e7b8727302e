"""AUROC of a probe on held-out activations after LEACE, by the number of training examples per dimension: .5 if the concept is gone.

`make calibration` prints the table; the tests run two of its cells.
"""

import torch
from torch import Tensor

from ontogeny.probes import leace, logistic
from ontogeny.statistics.cross_fitting import cross_fit_auroc
from ontogeny.statistics.splits import cross_fit_folds

EXAMPLES_PER_DIMENSION = (0.5, 0.9, 1.1, 1.5, 2.0, 4.0, 8.0)
SHRINKAGES = (0.0, 0.001, leace.SHRINK, 0.1)


def activations(n: int, d: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two classes apart along directions of small variance; a few directions hold most of the variance, as in a language model."""
    y = torch.arange(n) % 2 == 0
    spread = torch.linspace(1, 0.1, d)
    spread[:3] = torch.tensor([8.0, 4.0, 2.0])
    along = torch.cat([torch.zeros(d // 2), torch.ones(d - d // 2)]) / (d - d // 2) ** 0.5
    x = torch.randn(n, d, generator=g) * spread + 2.0 * (y.float() - 0.5)[:, None] * along
    return x[None], y


def scores_after_erasure(per_dimension: float, shrink: float, *, d: int = 64, sets: int = 20) -> tuple[Tensor, Tensor]:
    """AUROC before and after, one each data set; `per_dimension` counts the examples on which a fold's eraser is fitted."""
    g, before, after = torch.Generator().manual_seed(0), [], []
    n = round(per_dimension * d / 0.8)
    groups = torch.arange(n)
    for draw in range(sets):
        x, y = activations(n, d, g)
        folds = cross_fit_folds(groups, y, "binary", seed=draw)
        probes = logistic.fit_folds(x, y, folds, groups=groups)
        erasers = leace.fit_folds(x, y, folds, groups=groups, shrink=shrink)
        erased = torch.empty_like(probes.held_out_scores(x, folds))
        for fold in range(int(folds.max()) + 1):
            inside, eraser = folds == fold, erasers.fold(fold)
            read = eraser.scores(x[:, inside]) - (y[~inside].float().mean() - 0.5)
            erased[:, inside] = probes.fold(fold).scores(x[:, inside] - read @ eraser.facts["removed"].mT)
        for found, values in ((before, probes.held_out_scores(x, folds)), (after, erased)):
            found.append(cross_fit_auroc(values[..., 0], y, folds, groups).value)
    return torch.cat(before), torch.cat(after)


def erasure_table() -> str:
    """Mean AUROC before and after erasure for each shrinkage, as Markdown."""
    heads = " | ".join(f"after, shrinkage {shrink:g}" for shrink in SHRINKAGES)
    lines = [f"| training examples per dimension | before | {heads} |", "|---" * (2 + len(SHRINKAGES)) + "|"]
    for per_dimension in EXAMPLES_PER_DIMENSION:
        pairs = [scores_after_erasure(per_dimension, shrink) for shrink in SHRINKAGES]
        values = " | ".join(f"{float(value.mean()):.2f}" for value in (pairs[0][0], *(after for _, after in pairs)))
        lines.append(f"| {per_dimension:g} | {values} |")
    return "\n".join(lines)
