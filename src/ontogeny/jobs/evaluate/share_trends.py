"""Trends along the data-mix axis, computed from rows: does an effect, the part removed, a cost or a probe rise with the share of the data?

Where random directions (for probes the control task) are measured, the test is of what is above them: a model that is easier to move in any
direction shows no trend of a vector. All p-values of a run are corrected together (Benjamini–Hochberg). Where so few siblings can give no
significant trend among so many, it is undecided. A run without siblings gets no rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from ontogeny.dynamics.data_mix import (
    SHARE_METRICS,
    ShareCurve,
    difference,
    ends,
    least_trend_p,
    mean_points,
    share_curves,
    trend,
)
from ontogeny.jobs.evaluate.nulls import SIGNIFICANCE_LEVEL
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.records import DATA_SHARE, Record, make_record
from ontogeny.statistics.attainable import too_few_controls
from ontogeny.statistics.fdr import q_values
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_PREFIX = "share-trends-"
_WORDS = {
    "effect": ("the effect at equal KL", " nats"),
    "removed": ("the part of the probability of unwanted answers that is removed at equal KL", ""),
    "unwanted": ("the probability of unwanted answers without steering", ""),
    "kl": ("KL on neutral text at the chosen alpha", " nats per token"),
    "cross_entropy": ("the rise of cross-entropy on neutral text at the chosen alpha", " nats per token"),
    "probe": ("the accuracy of the probe at the best site", ""),
    "heads": ("the mean accuracy of probes of single heads", ""),
}
_WITH_METHOD = ("effect", "removed", "kl", "cross_entropy")


def write_share_trends(run: Run, lineage: str) -> str | None:
    """Write the trends in place of earlier ones; returns the unit, or None in a run without siblings."""
    metrics = ", ".join(f"'{metric}'" for metric in SHARE_METRICS)
    # Most rows of a large run are accuracies of heads in stages without siblings.
    table = run.query(
        f"select * exclude (run) from records where metric in ({metrics}) and (coords['{DATA_SHARE}'] is not null or metric = 'best_site') "
        "order by unit, concept, method, metric"
    )
    if table["metric"].isin(["best_site"]).all():
        run.forget(_PREFIX, but="")
        return None
    unit = f"{_PREFIX}{content_digest(sorted(set(table['unit'])))}"
    run.keep(unit, CheckpointStamp(lineage, unit).sign(list(trend_rows(table))))
    run.forget(_PREFIX, but=unit)
    return unit


@dataclass(frozen=True)
class _Trend:
    curve: ShareCurve
    rho: float
    above: float
    """Of the value less its null; `rho` where there is none."""
    p: float
    """Of `above`."""

    @classmethod
    def of(cls, curve: ShareCurve) -> "_Trend":
        return cls(curve, trend(curve)[0], *trend(curve.above_null))

    @property
    def has_null(self) -> bool:
        return self.curve.above_null is not self.curve

    @property
    def controls(self) -> int:
        """Number of controls whose least p equals that of the permuted shares."""
        return round(1 / least_trend_p(self.curve)) - 1


def trend_rows(table: pd.DataFrame) -> Iterator[Record]:
    """Rows `share_trend` and `share_difference` of every curve, and the trends of their random directions."""
    trends = [_Trend.of(curve) for curve in _distinct(share_curves(table))]
    if not trends:
        return
    p, siblings = (
        torch.tensor(values, dtype=torch.float64) for values in zip(*((t.p, t.controls) for t in trends), strict=True)
    )
    q, too_few = q_values(p).tolist(), too_few_controls(p, siblings, SIGNIFICANCE_LEVEL)
    for one, corrected, undecided in zip(trends, q, too_few, strict=True):
        curve = one.curve
        known = curve.known()
        coords = {"of": curve.quantity, "siblings": f"{len(known)}"}
        columns: dict[str, Any] = {"concept": curve.concept, "method": curve.method, "split": "test"}
        reason = f"a trend needs three siblings with a value, and has {len(known)}{_notes(curve)}"
        decided = coords | {"p": f"{one.p:.4g}", "q": f"{corrected:.4g}"} if not math.isnan(one.p) else coords
        note = (
            None
            if math.isnan(one.rho)
            else _sentence(one, corrected, sum(t.p == t.p for t in trends), too_few=undecided)
        )
        yield make_record("share_trend", one.rho, n=len(known), note=note, reason=reason, coords=decided, **columns)
        null, null_p = trend(curve.of_null)
        if not math.isnan(null):
            at = coords | {"p": f"{null_p:.4g}"}
            yield make_record("share_trend", null, n=len(known), control=_null_name(curve), coords=at, **columns)
            at = coords | {"p": f"{one.p:.4g}", "q": f"{corrected:.4g}"}
            above = {"reason": reason, "coords": at, **columns}
            yield make_record("share_trend", one.above, n=len(known), control=f"above_{_null_name(curve)}", **above)
        if (pair := ends(curve)) is not None:
            value, low, high = difference(*pair)
            at = coords | {"smaller": f"{pair[0].share:g}", "larger": f"{pair[1].share:g}"}
            n = min(pair[0].n, pair[1].n)
            yield make_record("share_difference", value, interval=(low, high), n=n, coords=at, **columns)


def _distinct(curves: list[ShareCurve]) -> Iterator[ShareCurve]:
    """The curves; the unsteered behaviour, which all methods that promote the same continuation share, once."""
    seen: list[tuple[str, list[tuple[float, float]]]] = []
    for curve in curves:
        key = (curve.concept, curve.known())
        if curve.quantity == "unwanted":
            if key in seen:
                continue
            seen.append(key)
        yield curve


def _null_name(curve: ShareCurve) -> str:
    return "control_task" if curve.quantity in ("probe", "heads") else "random_direction"


def _notes(curve: ShareCurve) -> str:
    notes = list(dict.fromkeys(p.note for p in curve.points if math.isnan(p.value) and p.note))
    return f" ({notes[0]})" if notes else ""


def _sentence(one: _Trend, q: float, count: int, *, too_few: bool) -> str:
    curve = one.curve
    words, unit = _WORDS[curve.quantity]
    method = f", {curve.method}" if curve.quantity in _WITH_METHOD or curve.method == "ablate" else ""
    text = f"{curve.concept}{method}: {words}"
    if (pair := ends(curve)) is not None:
        text += " is " + " and ".join(
            f"{p.value:.3g} [{p.low:.3g}, {p.high:.3g}]{unit} at a share of {p.share:g}" for p in pair
        )
    if curve.quantity == "removed":
        best = max(mean_points(curve), key=lambda p: p.value)
        text += f", the largest part at {best.share:g} ({best.value:.3g}, random directions {best.null:.3g})"
    known = len(curve.known())
    text += f"; rank correlation with the share {one.rho:+.2f} over {known} siblings"
    if one.has_null:
        null = "the control task" if _null_name(curve) == "control_task" else "random directions"
        text += f", of {null} {trend(curve.of_null)[0]:+.2f}, of what is above {null} {one.above:+.2f}"
    text += f" (p {one.p:.2g}, q {q:.2g} over {count} trends)."
    if too_few:
        least = least_trend_p(curve)
        return f"{text} Undecided: {known} siblings give no p below {least:.3f}, too large among {count} trends."
    if q > SIGNIFICANCE_LEVEL:
        return f"{text} No trend is shown{' beyond that of ' + null if one.has_null else ''}."
    return f"{text} It {'rises' if one.above > 0 else 'falls'} with the share."
