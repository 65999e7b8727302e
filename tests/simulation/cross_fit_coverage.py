"""Coverage of cross-fitted intervals over split, groups and fit, against the score that the probe has on new data on average.

Data sets of one situation have the same labels, groups and folds, so they are fitted and scored side by side, as sites are. Activations
are normal, so the score of a probe on new data has a closed form. `make calibration` prints the tables; the tests run a few of their
lines.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ontogeny import plugins
from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.probes import FoldProbes
from ontogeny.statistics import cross_fitting
from ontogeny.statistics.bootstrap import Interval, group_weights
from ontogeny.statistics.emergence import emergence_event
from ontogeny.statistics.splits import cross_fit_folds

_SHARED_NOISE = 0.7
"""Of the examples of a group, in units of their own noise."""
_AT_ONCE = 3_000_000
"""Activations of data sets that are drawn at once."""
_SURFACE = 5
"""Dimensions of the baseline that a probe is compared with, which are independent of the activations."""
_SURFACE_GAP = 1.5


@dataclass(frozen=True)
class Situation:
    method: str
    kind: str
    """Groups of `mixed` labels (one example of each class) or of `one` label (three examples each)."""
    groups: int
    d: int
    gap: float
    """Distance of the classes, along directions of small variance."""
    classes: int = 2

    @property
    def scale(self) -> Tensor:
        """Standard deviation of the noise in each dimension."""
        return torch.linspace(2, 0.3, self.d)

    @property
    def means(self) -> Tensor:
        """Mean of each class, any two of them `gap` apart."""
        along = torch.cat([torch.zeros(self.d // 2), torch.ones(self.d - self.d // 2)])
        if self.classes == 2:
            return torch.tensor([-0.5, 0.5])[:, None] * self.gap * along / along.norm()
        each = torch.stack([along * (torch.arange(self.d) % self.classes == c) for c in range(self.classes)])
        return self.gap * each / each.norm(dim=1, keepdim=True) / 2**0.5

    def layout(self, groups: int | None = None) -> tuple[Tensor, Tensor]:
        """Labels and groups."""
        size = self.classes if self.kind == "mixed" else 3
        group = torch.arange(groups or self.groups).repeat_interleave(size)
        label = (torch.arange(len(group)) + 1 if self.kind == "mixed" else group + 1) % self.classes
        return label == 1 if self.classes == 2 else label, group

    def draw_sets(self, sets: int, g: torch.Generator, groups: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Activations `[set, example, d]`, labels and groups; examples of a group share part of their noise."""
        y, group = self.layout(groups)
        shared = torch.randn(sets, int(group.max()) + 1, self.d, generator=g)[:, group]
        noise = (torch.randn(sets, len(y), self.d, generator=g) + _SHARED_NOISE * shared) * self.scale
        return noise + self.means[y.long()], y, group

    def draw(self, g: torch.Generator, groups: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Activations, labels and groups of one data set."""
        x, y, group = self.draw_sets(1, g, groups)
        return x[0], y, group

    def score_on_new_data(self, metric: str, fits: FoldProbes) -> Tensor:
        """AUROC (of three classes their mean) or accuracy of each fold's probe on new examples, `[set, fold]`."""
        w = fits.direction.double()
        means = torch.einsum("cd,sdfk->csfk", self.means.double(), w)
        spread = (1 + _SHARED_NOISE**2) ** 0.5 * (w * self.scale.double()[:, None, None]).norm(dim=1)
        if metric == "accuracy":
            negative, positive = ((mean + fits.bias.double()) / spread for mean in means[..., 0, None])
            return (torch.special.ndtr(positive) + torch.special.ndtr(-negative))[..., 0] / 2
        if self.classes == 2:
            return torch.special.ndtr((means[1] - means[0]) / spread / 2**0.5)[..., 0]
        against = [
            torch.special.ndtr((means[c, ..., c] - means[k, ..., c]) / spread[..., c] / 2**0.5)
            for c in range(self.classes)
            for k in range(self.classes)
            if k != c
        ]
        return torch.stack(against).mean(0)

    def cross_fit(self, sets: int, g: torch.Generator) -> Iterator[tuple[CrossFittedScores, FoldProbes]]:
        """Probes of data sets and their out-of-fold scores, in blocks."""
        module, (y, group) = plugins.load_plugin("probes", self.method), self.layout()
        folds = cross_fit_folds(group, y, "binary" if self.classes == 2 else "classes")
        ends = [*range(0, sets, max(1, _AT_ONCE // (len(y) * self.d))), sets]
        for start, end in pairwise(ends):
            x = self.draw_sets(end - start, g)[0]
            fits = module.fit_folds(x, y, folds, groups=group)
            yield CrossFittedScores(fits.held_out_scores(x, folds), y, folds, group, self.d, self.method), fits


@dataclass(frozen=True)
class Coverage:
    truth: float
    above: float
    """Share of data sets whose interval lies above the truth."""
    below: float
    tests_alone: float
    """Share of intervals that cover if the fits are taken as fixed."""
    exact: float
    """Share of data sets with a score of 0 or 1, whose interval is the exact binomial one."""

    @property
    def covered(self) -> float:
        """Share of data sets whose interval holds the truth."""
        return 1 - self.above - self.below


def coverage(situation: Situation, *, sets: int, metric: str = "auroc", seed: int = 0) -> Coverage:
    """Share of 95 % intervals that hold the mean score of the folds' probes on new data.

    Args:
        metric: `auroc`, `accuracy`, or `excess`: the AUROC less that of a baseline on other features.
    """
    g = torch.Generator().manual_seed(seed)
    other = Situation("mass_mean", situation.kind, situation.groups, _SURFACE, _SURFACE_GAP)
    truths, values, ends, fixed_ends = [], [], [], []
    for scored, fits in situation.cross_fit(sets, g):
        if metric == "excess":
            ((baseline, baseline_fits),) = other.cross_fit(len(scored.values), g)
            compared = replace(scored, values=baseline.values, method="")
            value, interval = scored.excess(compared)
            influence = scored.main.influence - compared.main.influence
            truth = situation.score_on_new_data("auroc", fits) - other.score_on_new_data("auroc", baseline_fits)
        else:
            value, interval = scored.score(metric).value, scored.interval(metric)
            influence = scored.score(metric).influence
            truth = situation.score_on_new_data(metric, fits)
        strata = None if metric == "accuracy" else scored.y
        of_tests = cross_fitting.group_variance(influence, scored.groups, strata)
        no_fits = torch.zeros(len(value))
        fixed_ends.append(cross_fitting.cross_fit_interval(value, of_tests, no_fits, share=metric != "excess"))
        values.append(value)
        ends.append(interval)
        truths.append(truth.mean(1))
    truth, value = float(torch.cat(truths).mean()), torch.cat(values)
    above, below = _missed(ends, truth)
    exact = float(((value <= 0) | (value >= 1)).double().mean())
    return Coverage(truth, above, below, 1 - sum(_missed(fixed_ends, truth)), exact)


def _missed(ends: list[Interval], truth: float) -> tuple[float, float]:
    """Share of intervals above the truth, and below it."""
    low, high = torch.cat([each.low for each in ends]), torch.cat([each.high for each in ends])
    return float((low > truth).double().mean()), float((high < truth).double().mean())


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


def situations_between() -> Iterator[Situation]:
    """Numbers of groups that lie between, and do not divide evenly into folds."""
    for method, d in (("logistic", 30), ("logistic", 200), ("mass_mean", 30), ("mass_mean", 200)):
        for groups in (7, 8, 9, 10, 14, 17):
            yield from (Situation(method, kind, groups, d, gap) for kind in ("mixed", "one") for gap in (0.0, 2.0))


def between_table(sets: int = 2000) -> str:
    """How many of these are covered between .93 and .97, where a score is 0 or 1 in fewer than 15 % of the data sets, as Markdown."""
    cells: dict[tuple[str, str], list[Coverage]] = {}
    for number, situation in enumerate(situations_between()):
        result = coverage(situation, sets=sets, seed=number)
        if result.exact < 0.15:
            cells.setdefault((situation.method, situation.kind), []).append(result)
    lines = [
        "| probe | labels of a group | situations | within | below | least | above | of these with misses on both sides |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (method, kind), results in cells.items():
        covered = [result.covered for result in results]
        wide = [result for result in results if result.covered > 0.97]
        lines.append(
            f"| {method} | {kind} | {len(results)} | {sum(0.93 <= c <= 0.97 for c in covered)} | {sum(c < 0.93 for c in covered)} "
            f"| {min(covered):.3f} | {len(wide)} | {sum(result.above >= 0.2 * (1 - result.covered) for result in wide)} |"
        )
    return "\n".join(lines)


def score_table(sets: int = 4000) -> str:
    """Coverage of every situation as Markdown."""
    lines = [
        "| probe | labels of a group | groups | dimensions | true AUROC | covered | too high | too low | fits fixed | 0 or 1 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number, situation in enumerate(situations()):
        result = coverage(situation, sets=sets, seed=number)
        columns = (situation.method, situation.kind, situation.groups, situation.d)
        lines.append(
            f"| {' | '.join(map(str, columns))} | {result.truth:.2f} | {result.covered:.3f} | {result.above:.3f} "
            f"| {result.below:.3f} | {result.tests_alone:.3f} | {result.exact:.0%} |"
        )
    return "\n".join(lines)


def metric_situations() -> Iterator[tuple[str, Situation]]:
    """Accuracy, the excess over a baseline, and the mean AUROC of three classes."""
    for metric, classes in (("accuracy", 2), ("excess", 2), ("auroc", 3)):
        for kind in ("mixed", "one"):
            for method, groups, gap in (
                ("logistic", 12, 2.0),
                ("logistic", 40, 0.0),
                ("logistic", 40, 2.0),
                ("mass_mean", 12, 2.0),
                ("mass_mean", 40, 0.0),
                ("mass_mean", 40, 3.0),
            ):
                yield metric, Situation(method, kind, groups, 30, gap, classes)


def metric_table(sets: int = 1000) -> str:
    """Coverage of other metrics than the AUROC of two classes as Markdown."""
    lines = [
        "| metric | probe | labels of a group | groups | true value | covered | too high | too low | fits fixed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for number, (metric, situation) in enumerate(metric_situations()):
        result = coverage(situation, sets=sets, metric=metric, seed=number)
        name = {"accuracy": "accuracy", "excess": "AUROC above a baseline", "auroc": "AUROC of three classes"}[metric]
        columns = (name, situation.method, situation.kind, situation.groups)
        lines.append(
            f"| {' | '.join(map(str, columns))} | {result.truth:.2f} | {result.covered:.3f} | {result.above:.3f} "
            f"| {result.below:.3f} | {result.tests_alone:.3f} |"
        )
    return "\n".join(lines)


def step_table(sets: int = 200) -> str:
    """Coverage of the intervals of steps as Markdown."""
    lines = ["| groups | final AUROC | concept emerges | interval holds the step |", "|---|---|---|---|"]
    for groups, gap in ((40, 0.9), (40, 1.4), (40, 2.5), (100, 0.8), (100, 1.2)):
        found = step_coverage(gap, groups, sets=sets)
        lines.append(f"| {groups} | {found.final:.2f} | {found.told:.2f} | {found.covered:.3f} |")
    return "\n".join(lines)
