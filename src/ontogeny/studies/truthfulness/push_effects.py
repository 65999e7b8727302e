"""What a push does to verdicts: how far along the push they go, and the normalised indirect effect (arXiv:2310.06824, 2504.02904).

PD is the mean of P(true) − P(false). `push_effect` = (PD pushed by +δ − PD pushed by −δ) / 2, over all statements: 0 for a push that
only destroys. NIE(true → false) = (PD′ − PD) / (−1 − PD) of the true statements pushed by −δ, NIE(false → true) = (PD′ − PD) / (1 − PD) of
the false ones pushed by +δ: 0 is no effect, 1 a full flip, and a push that destroys verdicts scores too. Form `gap` divides by the distance
between the false and the true statements' PD instead.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.compare.rows import IntervalEnds, StageRowBuilder
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import mean_samples, percentile_interval
from ontogeny.statistics.control_tasks import random_directions
from ontogeny.studies.truthfulness.folds import StatementFold
from ontogeny.studies.truthfulness.verdicts import VerdictPrompts

_NIE_FORMS = ("true_to_false", "false_to_true", "mean")
_MAX_STAGES_ALL_NULLS = 4
"""Of more stages, random directions stand beside each one's own vector and the first one's alone."""
_NULL_BATCH, _NULL_INTERVAL_SHARE = 16, 0.1
"""Random directions are drawn, so many at a time, until the interval of their mean effect is at most this share of the true one's."""


@dataclass(frozen=True, eq=False)
class SteeredVerdicts:
    """P(true) − P(false) of each statement under a push along a vector, and against it."""

    along: Float[Tensor, " example"]
    against: Float[Tensor, " example"]

    @classmethod
    def of(cls, asked: VerdictPrompts, vector: Float[Tensor, " d"], layers: Sequence[int], n: int) -> "SteeredVerdicts":
        return cls(*(asked.differences(sign * vector.expand(n, -1), layers) for sign in (1.0, -1.0)))

    def effect(self, fold: StatementFold) -> Float[Tensor, " sample"]:
        """On all statements (sample 0) and on every resample."""
        return mean_samples((self.along - self.against)[None] / 2, _weights(fold))[:, 0]

    def nie(
        self, plain: Float[Tensor, " example"], fold: StatementFold, form: str = "full"
    ) -> Float[Tensor, "way sample"]:
        """The two ways and their mean, on all statements (sample 0) and on every resample."""
        return natural_indirect_effect(plain, self.along.where(~fold.y_tried, self.against), fold, form)

    def turned(self) -> "SteeredVerdicts":
        """The same under the opposite vector."""
        return SteeredVerdicts(self.against, self.along)


def push_effect_rows(
    table: StageRowBuilder,
    site: Site,
    layers: Sequence[int],
    target: str,
    asked: VerdictPrompts,
    vectors: Mapping[str, Float[Tensor, " d"]],
    fold: StatementFold,
    *,
    nulls: int,
    seed: int,
) -> Iterator[Record]:
    """Rows of one target: its verdicts as they are, and what each stage's δ and random directions of its length do to them."""
    y, n = fold.y_tried, len(fold.y_tried)
    plain = asked.differences()
    for true in (True, False):
        mine = y if true else ~y
        samples = mean_samples(plain[None, mine], fold.weights[:, mine])[:, 0]
        low, high = _ends(torch.cat([plain[mine].mean()[None], samples]), fold.groups_tried)
        ends = max(-1.0, low), min(1.0, high)  # a difference of two probabilities
        coords = {"statements": str(true).lower()}
        yield table.row("verdict_gap", float(plain[mine].mean()), target, ends=ends, n=int(mine.sum()), coords=coords)
    directions = random_directions(len(next(iter(vectors.values()))), count=max(nulls, 2), seed=seed)
    blocks = {"blocks": f"{layers[0]}–{layers[-1]}"}
    for source, vector in vectors.items():
        pushed = SteeredVerdicts.of(asked, vector, layers, n)
        measured = {("push_effect", "", ""): pushed.effect(fold)}
        for form in ("full", "gap"):
            for way, values in zip(_NIE_FORMS, pushed.nie(plain, fold, form), strict=True):
                measured["nie", way, form] = values
        for (metric, way, form), values in measured.items():
            coords = blocks | {"length": "source"} | ({"way": way, "form": form} if way else {})
            ends = _ends(values, fold.groups_tried)
            yield table.row(metric, float(values[0]), target, source, site=site, ends=ends, n=n, coords=coords)
            if metric == "push_effect" and source != target:
                same = SteeredVerdicts.of(asked, vector * (vectors[target].norm() / vector.norm()), layers, n).effect(
                    fold
                )
                yield table.row(
                    metric,
                    float(same[0]),
                    target,
                    source,
                    site=site,
                    ends=_ends(same, fold.groups_tried),
                    n=n,
                    coords=coords | {"length": "target"},
                )
        if len(vectors) > _MAX_STAGES_ALL_NULLS and source not in (target, next(iter(vectors))):
            continue
        null = _null(
            asked,
            directions * vector.norm(),
            layers,
            fold,
            enough=_NULL_INTERVAL_SHARE * abs(float(pushed.effect(fold)[0])),
        )
        yield from _null_rows(table, site, target, source, null, plain, fold)


def natural_indirect_effect(
    plain: Float[Tensor, " example"], moved: Float[Tensor, " example"], fold: StatementFold, form: str = "full"
) -> Float[Tensor, "way sample"]:
    weights, y = _weights(fold), fold.y_tried
    before, after = (
        {true: mean_samples(values[None, mine], weights[:, mine])[:, 0] for true, mine in ((True, y), (False, ~y))}
        for values in (plain, moved)
    )
    gap = before[False] - before[True]
    down = (after[True] - before[True]) / (gap if form == "gap" else -1 - before[True])
    up = (after[False] - before[False]) / (-gap if form == "gap" else 1 - before[False])
    return torch.stack([down, up, (down + up) / 2])


def _null(
    asked: VerdictPrompts,
    directions: Float[Tensor, "null d"],
    layers: Sequence[int],
    fold: StatementFold,
    *,
    enough: float,
) -> list[SteeredVerdicts]:
    """Random directions, as many as it takes to tell their mean effect from the true one's, or all of them."""
    found: list[SteeredVerdicts] = []
    for vector in directions:
        found.append(SteeredVerdicts.of(asked, vector, layers, len(fold.y_tried)))
        if len(found) % _NULL_BATCH == 0:
            low, high = _mean_over(torch.stack([one.effect(fold) for one in found]), fold)[1]
            wanted = len(found) * ((high - low) / enough) ** 2 if enough else math.inf
            # A weak effect cannot be told from chance by any number of directions that would be worth their time.
            if wanted <= len(found) or (wanted > 2 * len(directions) and len(found) >= 2 * _NULL_BATCH):
                break
    return found


def _null_rows(
    table: StageRowBuilder,
    site: Site,
    target: str,
    source: str,
    null: Sequence[SteeredVerdicts],
    plain: Float[Tensor, " example"],
    fold: StatementFold,
) -> Iterator[Record]:
    """Mean over random directions with its interval over directions and groups; `q97_5`: what one in forty of them exceeds."""
    effect = torch.stack([one.effect(fold) for one in null])
    both = torch.stack([torch.stack([p.nie(plain, fold)[2] for p in (one, one.turned())]) for one in null])
    found = {
        "push_effect": (effect, effect[:, 0].abs()),
        # A direction and its opposite are equally likely: each is the control of the other.
        "nie": (both.mean(1), both[:, :, 0].flatten()),
    }
    for metric, (samples, single) in found.items():
        value, ends = _mean_over(samples, fold)
        coords = {"q97_5": f"{float(single.quantile(0.975)):.4f}"} | (
            {"way": "mean", "form": "full"} if metric == "nie" else {}
        )
        yield table.row(
            metric,
            value,
            target,
            source,
            site=site,
            ends=ends,
            n=len(fold.y_tried),
            control="random_direction",
            note=f"{len(null)} directions as long as the true one, each pushed along and against",
            coords=coords,
        )


def _mean_over(samples: Float[Tensor, "null sample"], fold: StatementFold) -> tuple[float, IntervalEnds]:
    """Of both the drawn directions and the drawn groups."""
    drawn = torch.randint(len(samples), samples[:, 1:].shape, generator=torch.Generator().manual_seed(0))
    both = samples[:, 1:].gather(0, drawn).mean(0)
    point = samples[:, :1].mean(0)
    return float(point), _ends(torch.cat([point, both]), min(len(samples), fold.groups_tried))


def _ends(values: Float[Tensor, " sample"], groups: int) -> IntervalEnds:
    """Of a point (first) and its resamples."""
    ends = percentile_interval(values[:1], values[1:, None], groups=groups)
    return float(ends.low), float(ends.high)


def _weights(fold: StatementFold) -> Float[Tensor, "sample row"]:
    return torch.cat([torch.ones(1, len(fold.y_tried)), fold.weights])
