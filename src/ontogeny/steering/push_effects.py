"""Effect of a steering vector on verdicts, and its normalised indirect effect (NIE; arXiv:2310.06824, 2504.02904).

PD is the mean of P(true) − P(false). `push_effect` = (PD steered by +δ − PD steered by −δ) / 2 over all statements; it is 0 for a vector
that only destroys verdicts. NIE(true → false) = (PD′ − PD) / (−1 − PD) of the true statements steered by −δ, NIE(false → true) =
(PD′ − PD) / (1 − PD) of the false ones steered by +δ: 0 means no effect, 1 a full flip, and a vector that destroys verdicts scores too.
Form `gap` divides by the distance between the PD of false and of true statements instead.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.statement_folds import StatementFold
from ontogeny.records import IntervalEnds, Record, StageRowBuilder
from ontogeny.statistics.bootstrap import interval_ends, mean_samples
from ontogeny.statistics.control_tasks import random_directions
from ontogeny.statistics.nulls import null_interval
from ontogeny.steering.verdicts import VerdictPrompts

_WAYS = ("true_to_false", "false_to_true", "mean")
_MAX_STAGES_ALL_NULLS = 4
"""With more stages, random directions are compared with each stage's own and the first stage's vector only."""
_NULL_BATCH, _NULL_INTERVAL_SHARE = 16, 0.1
"""Random directions are drawn in batches until the interval of their mean effect is at most this share of the vector's effect."""


@dataclass(frozen=True, eq=False)
class SteeredVerdicts:
    """P(true) − P(false) of each statement, steered along a vector and against it."""

    along: Float[Tensor, " example"]
    against: Float[Tensor, " example"]

    @classmethod
    def of(
        cls, prompts: VerdictPrompts, vector: Float[Tensor, " d"], layers: Sequence[int], n: int
    ) -> "SteeredVerdicts":
        return cls(*(prompts.differences(sign * vector.expand(n, -1), layers) for sign in (1.0, -1.0)))

    def effect(self, fold: StatementFold) -> Float[Tensor, " sample"]:
        """`push_effect` on all statements (sample 0) and on every resample."""
        return mean_samples((self.along - self.against)[None] / 2, _weights(fold))[:, 0]

    def nie(
        self, plain: Float[Tensor, " example"], fold: StatementFold, form: str = "full"
    ) -> Float[Tensor, "way sample"]:
        """NIE in each of `_WAYS`, on all statements (sample 0) and on every resample."""
        weights, y = _weights(fold), fold.y_tested
        before, after = (
            {true: mean_samples(values[None, rows], weights[:, rows])[:, 0] for true, rows in ((True, y), (False, ~y))}
            for values in (plain, self.along.where(~y, self.against))
        )
        gap = before[False] - before[True]
        down = (after[True] - before[True]) / (gap if form == "gap" else -1 - before[True])
        up = (after[False] - before[False]) / (-gap if form == "gap" else 1 - before[False])
        return torch.stack([down, up, (down + up) / 2])

    def reversed(self) -> "SteeredVerdicts":
        """The same for the opposite vector."""
        return SteeredVerdicts(self.against, self.along)


def push_effect_rows(
    table: StageRowBuilder,
    layers: Sequence[int],
    stage: str,
    prompts: VerdictPrompts,
    vectors: Mapping[str, Float[Tensor, " d"]],
    fold: StatementFold,
    *,
    nulls: int,
    seed: int,
) -> Iterator[Record]:
    """Unsteered verdicts of one stage, and effects of each stage's δ and of norm-matched random directions."""
    y, n = fold.y_tested, len(fold.y_tested)
    plain = prompts.differences()
    for true, rows in ((True, y), (False, ~y)):
        mean = plain[rows].mean()
        samples = mean_samples(plain[None, rows], fold.weights[:, rows])[:, 0]
        ends = interval_ends(mean, samples, groups=fold.groups_tested, within=(-1.0, 1.0))
        yield replace(table, site=None).row(
            "verdict_gap", float(mean), stage, ends=ends, n=int(rows.sum()), statements=true
        )
    directions = random_directions(len(next(iter(vectors.values()))), count=max(nulls, 2), seed=seed)
    for source, vector in vectors.items():
        steered = SteeredVerdicts.of(prompts, vector, layers, n)
        effect = steered.effect(fold)
        effects = [("push_effect", {"length": "source"}, effect)]
        if source != stage:
            scaled = SteeredVerdicts.of(prompts, vector * (vectors[stage].norm() / vector.norm()), layers, n)
            effects.append(("push_effect", {"length": "target"}, scaled.effect(fold)))
        for form in ("full", "gap"):
            for way, values in zip(_WAYS, steered.nie(plain, fold, form), strict=True):
                effects.append(("nie", {"length": "source", "way": way, "form": form}, values))
        for metric, coords, values in effects:
            ends, blocks = _ends(values, fold.groups_tested), f"{layers[0]}–{layers[-1]}"
            yield table.row(metric, float(values[0]), stage, source, ends=ends, n=n, blocks=blocks, **coords)
        if len(vectors) > _MAX_STAGES_ALL_NULLS and source not in (stage, next(iter(vectors))):
            continue
        enough = _NULL_INTERVAL_SHARE * abs(float(effect[0]))
        null = _null(prompts, directions * vector.norm(), layers, fold, enough=enough)
        yield from _null_rows(table, stage, source, null, plain, fold)


def _null(
    prompts: VerdictPrompts,
    directions: Float[Tensor, "null d"],
    layers: Sequence[int],
    fold: StatementFold,
    *,
    enough: float,
) -> list[SteeredVerdicts]:
    """Random directions until the interval of their mean effect is `enough`, or all of them."""
    null: list[SteeredVerdicts] = []
    for vector in directions:
        null.append(SteeredVerdicts.of(prompts, vector, layers, len(fold.y_tested)))
        if len(null) % _NULL_BATCH == 0:
            low, high = _mean_over(torch.stack([of.effect(fold) for of in null]), fold)[1]
            needed = len(null) * ((high - low) / enough) ** 2 if enough else math.inf
            # A weak effect would need more directions than it is worth.
            if needed <= len(null) or (needed > 2 * len(directions) and len(null) >= 2 * _NULL_BATCH):
                break
    return null


def _null_rows(
    table: StageRowBuilder,
    stage: str,
    source: str,
    null: Sequence[SteeredVerdicts],
    plain: Float[Tensor, " example"],
    fold: StatementFold,
) -> Iterator[Record]:
    """Mean effect of the random directions; `q97_5` is the 97.5 % quantile of a single one."""
    effect = torch.stack([of.effect(fold) for of in null])
    # A direction and its opposite are equally likely: each is the control of the other.
    both = torch.stack([torch.stack([p.nie(plain, fold)[2] for p in (of, of.reversed())]) for of in null])
    for metric, samples, single, coords in (
        ("push_effect", effect, effect[:, 0].abs(), {}),
        ("nie", both.mean(1), both[:, :, 0].flatten(), {"way": "mean", "form": "full"}),
    ):
        value, ends = _mean_over(samples, fold)
        yield table.row(
            metric,
            value,
            stage,
            source,
            ends=ends,
            n=len(fold.y_tested),
            control="random_direction",
            note=f"{len(null)} directions as long as the true one, each pushed along and against",
            q97_5=f"{null_interval(single)[1]:.4f}",
            **coords,
        )


def _mean_over(samples: Float[Tensor, "null sample"], fold: StatementFold) -> tuple[float, IntervalEnds]:
    """Mean over directions, with an interval over drawn directions and drawn groups."""
    drawn = torch.randint(len(samples), samples[:, 1:].shape, generator=torch.Generator().manual_seed(0))
    both = samples[:, 1:].gather(0, drawn).mean(0)
    point = samples[:, :1].mean(0)
    return float(point), _ends(torch.cat([point, both]), min(len(samples), fold.groups_tested))


def _ends(values: Float[Tensor, " sample"], groups: int) -> IntervalEnds:
    """Interval of a point (first) from its resamples."""
    return interval_ends(values[0], values[1:], groups=groups)


def _weights(fold: StatementFold) -> Float[Tensor, "sample row"]:
    return torch.cat([torch.ones(1, len(fold.y_tested)), fold.weights])
