"""Coverage of cross-fitted intervals over split, groups and fit, against the score that the probe has on new data on average.

`python tests/simulation/cross_fit_coverage.py [data sets]` prints the table of docs/calibration.md; the tests run a few of its lines.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ontogeny import plugins
from ontogeny.metrics.separability import auroc
from ontogeny.statistics import cross_fitting
from ontogeny.statistics.splits import cross_fit_folds

NEW_DATA_GROUPS = 1500


@dataclass(frozen=True)
class Situation:
    method: str
    kind: str
    """Groups of `mixed` labels (two examples each) or of `one` label (three examples each)."""
    groups: int
    d: int
    gap: float
    """Distance of the classes, along directions of small variance."""

    def draw(self, g: torch.Generator, groups: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Activations, labels and groups; examples of a group share part of their noise."""
        count, size = groups or self.groups, 2 if self.kind == "mixed" else 3
        group = torch.arange(count).repeat_interleave(size)
        y = torch.arange(len(group)) % 2 == 0 if self.kind == "mixed" else group % 2 == 0
        shared = torch.randn(count, self.d, generator=g)[group]
        noise = (torch.randn(len(group), self.d, generator=g) + 0.7 * shared) * torch.linspace(2, 0.3, self.d)
        along = torch.cat([torch.zeros(self.d // 2), torch.ones(self.d - self.d // 2)])
        return noise + self.gap * (y.float() - 0.5)[:, None] * along / along.norm(), y, group


@dataclass(frozen=True)
class Coverage:
    truth: float
    covered: float
    tests_alone: float
    """Share of intervals that cover if the fits are taken as fixed."""
    sets: int


def coverage(situation: Situation, *, sets: int, seed: int = 0) -> Coverage:
    """Share of 95 % intervals that hold the mean AUROC of the folds' probes on new data."""
    g = torch.Generator().manual_seed(seed)
    module = plugins.load_plugin("probes", situation.method)
    new, new_y, _ = situation.draw(g, NEW_DATA_GROUPS)
    truths, values, variances = [], [], []
    for draw in range(sets):
        x, y, groups = situation.draw(g)
        folds = cross_fit_folds(groups, y, "binary", seed=draw)
        fits = module.fit_folds(x[None], y, folds, groups=groups, seed=draw)
        score = cross_fitting.cross_fit_auroc(fits.held_out_scores(x[None], folds)[..., 0], y, folds, groups)
        values.append(score.value)
        variances.append(cross_fitting.group_variance(score.influence, groups, y))
        each = [fits.fold(f).scores(new[None])[0, :, 0] for f in range(fits.bias.shape[1])]
        truths.append(auroc(torch.stack(each), new_y).mean())
    truth, value = float(torch.stack(truths).mean()), torch.cat(values)
    variance = cross_fitting.GroupVariance(
        torch.cat([v.value for v in variances]), torch.cat([v.freedom for v in variances])
    )
    share = cross_fitting.fit_variance_share(value, share=True, examples=len(y), width=situation.d)

    def covered(share: Tensor) -> float:
        ends = cross_fitting.cross_fit_interval(value, variance, share, share=True)
        return float(((ends.low <= truth) & (truth <= ends.high)).float().mean())

    return Coverage(truth, covered(share), covered(torch.zeros_like(share)), sets)


def situations() -> Iterator[Situation]:
    """From chance to AUROC .97, 6 to 40 groups, more and fewer dimensions than examples."""
    for method, d in (("logistic", 30), ("logistic", 200), ("mass_mean", 30), ("mass_mean", 200)):
        for kind in ("mixed", "one"):
            for groups, gaps in ((6, (0.0, 3.0)), (12, (0.0, 2.5)), (20, (0.0, 2.0)), (40, (0.0, 1.0, 2.0, 3.0, 4.0))):
                yield from (Situation(method, kind, groups, d, gap) for gap in gaps)


def main(sets: int) -> None:
    """Print the table as Markdown."""
    print("| probe | labels of a group | groups | dimensions | true AUROC | covered | fits taken as fixed |")
    print("|---|---|---|---|---|---|---|")
    for situation in situations():
        found = coverage(replace(situation), sets=sets)
        columns = (situation.method, situation.kind, situation.groups, situation.d)
        print(
            "|",
            " | ".join(map(str, columns)),
            f"| {found.truth:.2f} | {found.covered:.3f} | {found.tests_alone:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
