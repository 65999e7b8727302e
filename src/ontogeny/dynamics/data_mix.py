"""Data-mix axis: the last checkpoints of sibling stages that differ in the share of some data, compared along that share.

Each quantity of a concept and steering method is a curve over the shares: the effect, the part of an unwanted behaviour that is removed,
the cost, and the accuracy of probes. A trend is Spearman's correlation, with its exact p under permuted shares: siblings are the units, so
that the spread of retraining is in it, which the intervals of single siblings lack.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ontogeny.records import DATA_SHARE
from ontogeny.statistics.rank_correlation import permuted_rank_correlations

QUANTITIES = ("effect", "removed", "unwanted", "kl", "cross_entropy", "probe", "heads")
"""Compared quantities, and their names in `coords.of` of a trend's rows."""
SHARE_METRICS = (
    *("effect_at_equal_kl", "steering_effect", "removed_share", "unwanted_share", "neutral_kl", "neutral_ce_rise"),
    *("chosen_alpha", "accuracy", "best_site"),
)
"""Metrics of the rows that curves are read from."""
_ORDERS = 5039
"""Orders of the shares that are drawn beside the true one, where there are too many to try all."""
_TINY = 1e-12
_HALF = 1.96
"""Half of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class SharePoint:
    """One sibling: a value with its 95 % interval, and that of its null."""

    share: float
    stage: str
    train_seed: int | None
    value: float
    low: float
    high: float
    n: int
    null: float = math.nan
    """Mean of random directions of equal norm, or the control task of a probe."""
    null_low: float = math.nan
    null_high: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class ShareCurve:
    """One quantity of a concept over the shares of its siblings."""

    concept: str
    method: str
    """Steering method; the probe for accuracies."""
    quantity: str
    points: tuple[SharePoint, ...]

    def known(self) -> list[tuple[float, float]]:
        """Share and value of the siblings in which it could be measured."""
        return [(p.share, p.value) for p in self.points if not math.isnan(p.value)]

    @property
    def of_null(self) -> "ShareCurve":
        """The curve of the null."""
        return replace(self, points=tuple(replace(p, value=p.null) for p in self.points))

    @property
    def above_null(self) -> "ShareCurve":
        """The curve of the value less its null; of the value where there is none."""
        if not self.of_null.known():
            return self
        return replace(self, points=tuple(replace(p, value=p.value - p.null) for p in self.points))


def share_curves(records: pd.DataFrame) -> list[ShareCurve]:
    """The curves of a table, at the last evaluated or traced checkpoint of each sibling; none without siblings.

    Args:
        records: Rows of a run, with the columns of a record.
    """
    rows = _siblings(records)
    curves = []
    for concept in rows["concept"].unique():
        own = rows[rows["concept"].eq(concept)]
        best = records[records["metric"].eq("best_site") & records["concept"].eq(concept)]
        site = next(iter(best["site"].dropna()), "")
        for method in own["method"].unique():
            of_method = own[own["method"].eq(method)]
            for quantity in QUANTITIES:
                points = [*_points(of_method, quantity, str(site))]
                if points:
                    curves.append(ShareCurve(str(concept), str(method), quantity, tuple(points)))
    return curves


def frontier_rows(records: pd.DataFrame) -> pd.DataFrame:
    """Remaining share at each alpha of each sibling over its cost: rows `unwanted_share` with the columns `share`, `cost` and `kind`.

    `kind` is empty for the vector, `unsteered`, or `random_direction`.
    """
    rows = _siblings(records)
    rows = rows[rows["metric"].eq("unwanted_share") & rows["value"].notna()]
    cost = [_number(c.get("cost")) for c in rows["coords"]]
    at_kl = [("kl" in c) for c in rows["coords"]]
    rows = rows.assign(cost=cost, kind=rows["control"], at_equal_kl=at_kl)
    return rows[rows["cost"].notna()]


def trend(curve: ShareCurve, *, seed: int = 0) -> tuple[float, float]:
    """Spearman's correlation of a quantity with the share, and its two-sided p under permuted shares; NaN for fewer than three siblings."""
    pairs = curve.known()
    if len(pairs) < 3 or len({share for share, _ in pairs}) < 2:
        return math.nan, math.nan
    shares, values = (np.array(side) for side in zip(*pairs, strict=True))
    from ontogeny.statistics.order_test import checkpoint_orders  # loads torch, which a chart does not need

    orders = checkpoint_orders(len(shares), samples=_ORDERS, seed=seed).numpy()
    drawn = permuted_rank_correlations(shares, values, orders)
    return float(drawn[0]), float((np.abs(drawn) >= abs(drawn[0]) - _TINY).mean())


def least_trend_p(curve: ShareCurve) -> float:
    """The smallest p that so many siblings of these shares can give."""
    shares = np.array([share for share, _ in curve.known()])
    if len(shares) < 3:
        return 1.0
    return trend(ShareCurve("", "", "", tuple(_bare(share, share) for share in shares)))[1]


def mean_points(curve: ShareCurve) -> list[SharePoint]:
    """One point for each share: the mean over its siblings, with the interval of a mean of independent values and the mean null."""
    known = [p for p in curve.points if not math.isnan(p.value)]
    means = []
    for _, same in itertools.groupby(known, key=lambda p: p.share):
        several = list(same)
        value = float(np.mean([p.value for p in several]))
        below, above = (
            math.hypot(*(end - p.value for end, p in zip(side, several, strict=True))) / len(several)
            for side in ([p.low for p in several], [p.high for p in several])
        )
        sides = [(p.null, p.null_low, p.null_high) for p in several if not math.isnan(p.null)]
        null = [float(side) for side in np.mean(sides, axis=0)] if sides else [math.nan] * 3
        one = (
            several[0] if len(several) == 1 else replace(several[0], value=value, low=value - below, high=value + above)
        )
        means.append(replace(one, n=sum(p.n for p in several), null=null[0], null_low=null[1], null_high=null[2]))
    return means


def ends(curve: ShareCurve) -> tuple[SharePoint, SharePoint] | None:
    """The means at the smallest and at the largest share in which it could be measured."""
    means = mean_points(curve)
    return (means[0], means[-1]) if len(means) > 1 else None


def difference(smaller: SharePoint, larger: SharePoint) -> tuple[float, float, float]:
    """Value at the larger share minus that at the smaller one; the interval takes both as independent, which is too wide for common
    questions, and says nothing about retraining."""
    value = larger.value - smaller.value
    half = math.hypot(_half(smaller), _half(larger))
    return value, value - half, value + half


def _half(point: SharePoint) -> float:
    return (point.high - point.low) / 2


def _bare(share: float, value: float) -> SharePoint:
    return SharePoint(share, "", None, value, math.nan, math.nan, 1)


def _siblings(records: pd.DataFrame) -> pd.DataFrame:
    """The rows of siblings at their last checkpoint, with the column `share`, by ascending share."""
    coords = [c if isinstance(c, dict) else dict(c or {}) for c in records["coords"]]
    share = pd.Series([_number(c.get(DATA_SHARE)) for c in coords], index=records.index, dtype="float64")
    texts = {name: _text(records[name]) for name in ("control", "stage", "method", "site", "split", "note")}
    rows = records.assign(coords=pd.Series(coords, index=records.index, dtype=object), share=share, **texts)
    rows = rows[rows["share"].notna() & rows["concept"].notna() & rows["concept"].ne("")]
    step = pd.to_numeric(rows["step"], errors="coerce").astype("float64").fillna(np.inf)
    last = step.groupby([rows["stage"], rows["share"]]).transform("max")
    return rows[step.eq(last)].sort_values("share", kind="stable")


def _text(column: pd.Series) -> pd.Series:
    """Texts, with "" for null."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _points(rows: pd.DataFrame, quantity: str, site: str) -> Iterator[SharePoint]:
    for (_, _), own in rows.groupby(["share", "stage"], sort=False):
        if (point := _POINTS[quantity](own, site)) is not None:
            yield point


def _effect(rows: pd.DataFrame, _: str) -> SharePoint | None:
    """At equal KL; of an ablation, which has no alpha, the effect itself."""
    at_kl = _metric(rows, "effect_at_equal_kl")
    return _point(at_kl if len(at_kl) else _at_chosen(_metric(rows, "steering_effect", split="test"), rows))


def _removed(rows: pd.DataFrame, _: str) -> SharePoint | None:
    removed = _metric(rows, "removed_share")
    at_kl = removed[[("kl" in c) for c in removed["coords"]]]
    return _point(at_kl if len(at_kl) else _at_chosen(removed, rows))


def _unwanted(rows: pd.DataFrame, _: str) -> SharePoint | None:
    before = rows[rows["metric"].eq("unwanted_share") & rows["control"].eq("unsteered")]
    return _point(before.assign(control=""))


def _kl(rows: pd.DataFrame, _: str) -> SharePoint | None:
    return _point(_at_chosen(_metric(rows, "neutral_kl"), rows))


def _cross_entropy(rows: pd.DataFrame, _: str) -> SharePoint | None:
    return _point(_metric(rows, "neutral_ce_rise"))


def _probe(rows: pd.DataFrame, site: str) -> SharePoint | None:
    return _point(_accuracies(rows[rows["site"].eq(site)]))


def _heads(rows: pd.DataFrame, _: str) -> SharePoint | None:
    """Mean accuracy over the attention heads; its interval is that of the mean over heads."""
    accuracy = _accuracies(rows)
    heads = accuracy[accuracy["site"].str.startswith("head.") & accuracy["value"].notna()]
    own = heads[heads["control"].eq("")]
    if own.empty:
        return None
    value, half = (
        float(own["value"].mean()),
        _HALF * float(own["value"].std(ddof=1) if len(own) > 1 else math.nan) / len(own) ** 0.5,
    )
    null = heads[heads["control"].ne("")]["value"]
    first = own.iloc[0]
    at = float(null.mean()) if len(null) else math.nan
    return SharePoint(first["share"], first["stage"], _seed(first), value, value - half, value + half, len(own), at)


def _accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracies on held-out examples, with those of the control task as their null."""
    keep = rows["metric"].eq("accuracy") & rows["split"].eq("test") & rows["control"].isin(["", "control_task"])
    return rows[keep & rows["method"].eq("logistic")]


def _metric(rows: pd.DataFrame, metric: str, *, split: str | None = None) -> pd.DataFrame:
    """A metric with its random directions."""
    keep = rows["metric"].eq(metric) & rows["control"].isin(["", "random_direction"])
    return rows[keep if split is None else keep & rows["split"].eq(split)]


def _at_chosen(rows: pd.DataFrame, method_rows: pd.DataFrame) -> pd.DataFrame:
    """The rows at the chosen site or number of heads, and alpha."""
    chosen = method_rows[method_rows["metric"].eq("chosen_alpha") & method_rows["value"].notna()]
    if chosen.empty:
        return rows.head(0)
    place = {k: v for k, v in chosen.iloc[0]["coords"].items() if k in ("site", "k")}
    place["alpha"] = f"{chosen.iloc[0]['value']:g}"
    return rows[[place.items() <= c.items() for c in rows["coords"]]]


def _point(rows: pd.DataFrame) -> SharePoint | None:
    own = rows[rows["control"].eq("")]
    if own.empty:
        return None
    row, null = own.iloc[0], rows[rows["control"].ne("") & rows["value"].notna()]
    n = 0 if pd.isna(row["n"]) else int(row["n"])
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    point = SharePoint(row["share"], row["stage"], _seed(row), value, low, high, n, note=row["note"])
    if null.empty:
        return point
    mean, below, above = (float(null.iloc[0][name]) for name in ("value", "low", "high"))
    return replace(point, null=mean, null_low=below, null_high=above)


def _seed(row: Any) -> int | None:
    return None if pd.isna(row["train_seed"]) else int(row["train_seed"])


_POINTS = {
    "effect": _effect,
    "removed": _removed,
    "unwanted": _unwanted,
    "kl": _kl,
    "cross_entropy": _cross_entropy,
    "probe": _probe,
    "heads": _heads,
}
