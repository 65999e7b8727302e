"""Coverage of cross-fitted intervals over split, groups and fit, against the score that the probe has on new data on average.

`make calibration` prints the tables; the tests run a few of their lines.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ontogeny import plugins
from ontogeny.metrics.separability import auroc
from ontogeny.statistics import cross_fitting
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.emergence import emergence_event
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
    exact: float
    """Share of data sets with a score of 0 or 1, whose interval is the exact binomial one."""


def coverage(situation: Situation, *, sets: int, seed: int = 0) -> Coverage:
    """Share of 95 % intervals that hold the mean AUROC of the folds' probes on new data."""
    g = torch.Generator().manual_seed(seed)
    module = plugins.load_plugin("probes", situation.method)
    new, new_y, _ = situation.draw(g, NEW_DATA_GROUPS)
    truths, values, variances, of_tests = [], [], [], []
    for draw in range(sets):
        x, y, groups = situation.draw(g)
        folds = cross_fit_folds(groups, y, "binary", seed=draw)
        fits = module.fit_folds(x[None], y, folds, groups=groups, seed=draw)
        u = fits.held_out_scores(x[None], folds)[..., 0]
        score = cross_fitting.cross_fit_auroc(u, y, folds, groups)
        values.append(score.value)
        method = situation.method
        variances.append(cross_fitting.auroc_variance(u, score, y, folds, groups, method=method))
        of_tests.append(cross_fitting.group_variance(score.influence, groups, y))
        each = [fits.fold(f).scores(new[None])[0, :, 0] for f in range(fits.bias.shape[1])]
        truths.append(auroc(torch.stack(each), new_y).mean())
    truth, value = float(torch.stack(truths).mean()), torch.cat(values)

    def covered(each: list[cross_fitting.GroupVariance]) -> float:
        variance = cross_fitting.GroupVariance(torch.cat([v.value for v in each]), torch.cat([v.freedom for v in each]))
        ends = cross_fitting.cross_fit_interval(value, variance, torch.zeros_like(value), share=True)
        return float(((ends.low <= truth) & (truth <= ends.high)).float().mean())

    exact = float(((value <= 0) | (value >= 1)).float().mean())
    return Coverage(truth, covered(variances), covered(of_tests), exact)


@dataclass(frozen=True)
class StepCoverage:
    final: float
    """Mean AUROC at the last checkpoint."""
    told: float
    """Share of data sets in which the concept emerges."""
    covered: float
    """Share of these whose interval of the step holds that of the mean curve."""


def step_coverage(gap: float, groups: int, *, sets: int, d: int = 30, seed: int = 1) -> StepCoverage:
    """Coverage of the interval of an emergence step; the classes move apart by `gap` along a sigmoid over nine checkpoints."""
    g = torch.Generator().manual_seed(seed)
    steps = torch.tensor([0, 1, 2, 4, 8, 16, 32, 64, 128])
    position = (steps + 1.0).log2()
    gaps = gap * torch.sigmoid(2.2 * (position - 3.6))
    group = torch.arange(groups).repeat_interleave(2)
    y, along = torch.arange(len(group)) % 2 == 0, torch.ones(d) / d**0.5
    module, curves, events = plugins.load_plugin("probes", "mass_mean"), [], []
    for draw in range(sets):
        shared = torch.randn(len(y), d, generator=g) + 0.7 * torch.randn(groups, d, generator=g)[group]
        own = torch.randn(len(steps), len(y), d, generator=g)
        x = 0.8**0.5 * shared + 0.2**0.5 * own + gaps[:, None, None] * (y.float() - 0.5)[:, None] * along
        folds = cross_fit_folds(group, y, "binary", seed=draw)
        u = module.fit_folds(x, y, folds, groups=group).held_out_scores(x, folds)[..., 0]
        score = cross_fitting.cross_fit_auroc(u, y, folds, group)
        variance = cross_fitting.auroc_variance(u, score, y, folds, group, method="mass_mean")
        share = cross_fitting.resample_share(variance, score, group)
        weights = group_weights(group, samples=200, seed=draw)
        samples = cross_fitting.cross_fit_samples(score, weights, share, share=True)
        curves.append(score.value)
        events.append(emergence_event(steps, score.value, samples, floor=0.5))
    mean = torch.stack(curves).mean(0)
    goal = (0.5 + mean[-1]) / 2
    last = int((mean < goal).nonzero().max())
    part = (goal - mean[last]) / (mean[last + 1] - mean[last])
    truth = float(2 ** (position[last] + part * (position[last + 1] - position[last])) - 1)
    known = [event for event in events if not math.isnan(event.step)]
    held = [event.low <= truth and not event.high < truth for event in known]
    return StepCoverage(float(mean[-1]), len(known) / sets, sum(held) / max(len(held), 1))


def situations() -> Iterator[Situation]:
    """From chance to AUROC .97, 6 to 40 groups, more and fewer dimensions than examples."""
    for method, d in (("logistic", 30), ("logistic", 200), ("mass_mean", 30), ("mass_mean", 200)):
        for kind in ("mixed", "one"):
            for groups, gaps in ((6, (0.0, 3.0)), (12, (0.0, 2.5)), (20, (0.0, 2.0)), (40, (0.0, 1.0, 2.0, 3.0, 4.0))):
                yield from (Situation(method, kind, groups, d, gap) for gap in gaps)


def score_table(sets: int = 400) -> str:
    """Coverage of every situation as Markdown."""
    lines = [
        "| probe | labels of a group | groups | dimensions | true AUROC | covered | fits taken as fixed | score is 0 or 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for situation in situations():
        found = coverage(situation, sets=sets)
        columns = (situation.method, situation.kind, situation.groups, situation.d)
        lines.append(
            f"| {' | '.join(map(str, columns))} | {found.truth:.2f} | {found.covered:.3f} | {found.tests_alone:.3f} "
            f"| {found.exact:.0%} |"
        )
    return "\n".join(lines)


def step_table(sets: int = 200) -> str:
    """Coverage of the intervals of steps as Markdown."""
    lines = ["| groups | final AUROC | concept emerges | interval holds the step |", "|---|---|---|---|"]
    for groups, gap in ((40, 0.9), (40, 1.4), (40, 2.5), (100, 0.8), (100, 1.2)):
        found = step_coverage(gap, groups, sets=sets)
        lines.append(f"| {groups} | {found.final:.2f} | {found.told:.2f} | {found.covered:.3f} |")
    return "\n".join(lines)
