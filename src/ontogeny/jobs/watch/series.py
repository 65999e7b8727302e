"""Series of a run for alerts and live views: each concept at its best site of each checkpoint, read from the records and directions."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.jobs.watch.alerts import ConceptPoint, Measured, WatchedSeries
from ontogeny.metrics.similarity import unit_vectors
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import student_t_quantile
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    import pandas as pd

_FOLD_KEYS = ("mass_mean/{}/folds/direction", "ridge/{}/folds/direction")
_CHANCE = {"auroc": 0.5, "r2": 0.0}


class SeriesReader:
    """Reads the series of one run; what was read of a finished checkpoint is kept, so that a later call reads the new ones only."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.directions: dict[tuple[str, str], Float[Tensor, "fold d"] | None] = {}

    def read(self, concepts: Sequence[str] = ()) -> list[WatchedSeries]:
        """The series of each concept and stage, in the order of run.json; all concepts by default."""
        about = self.run.about
        names = list(concepts) or [str(entry["name"]) for entry in about["concepts"]]
        parents: Mapping[str, str | None] = about["lineage"].get("parents") or {}
        rows = _rows(self.run, names)
        series = []
        for name in names:
            visits = measured_checkpoints(self.run, name)
            own = rows[rows["concept"] == name]
            by_stage: dict[str, list[MeasuredCheckpoint]] = {}
            for visit in visits:
                by_stage.setdefault(visit.stage, []).append(visit)
            for stage, measured in by_stage.items():
                up = by_stage.get(parents.get(stage) or "", [])[-1:]
                series.append(self._series(name, own, [*up, *measured], len(up)))
        return series

    def _series(
        self, name: str, rows: "pd.DataFrame", visits: Sequence[MeasuredCheckpoint], inherited: int
    ) -> WatchedSeries:
        points = tuple(_point(rows, visit) for visit in visits)
        metric = points[0].metric if points else "auroc"
        surface = rows[rows["control"].fillna("").str.startswith("surface") & (rows["metric"] == metric)]["value"].max()
        floor = max(_CHANCE[metric], float(surface) if surface == surface else 0.0)

        def angle(first: int, second: int) -> Measured:
            site = points[first].site
            return angle_between(self._direction(visits[first], site), self._direction(visits[second], site))

        return WatchedSeries(name, points, floor, angle, inherited)

    def _direction(self, visit: MeasuredCheckpoint, site: str) -> Float[Tensor, "fold d"] | None:
        """Unit directions of the folds at a site; None without cross-fitting."""
        key = visit.unit, site
        if key not in self.directions:
            self.directions[key] = _fold_directions(self.run, visit, Site.parse(site)) if site else None
        return self.directions[key]


def angle_between(a: Float[Tensor, "fold d"] | None, b: Float[Tensor, "fold d"] | None) -> Measured:
    """Degrees between two directions, with a jackknife interval over the folds; NaN without folds."""
    if a is None or b is None or a.shape != b.shape:
        return Measured()
    folds = len(a)
    cosine = (a.double() * b.double()).sum(1).clamp(-1, 1)
    angles = torch.rad2deg(torch.acos(cosine))
    value = float(angles.mean())
    # Folds share most of their examples: the jackknife multiplies their variance by folds - 1.
    spread = float(angles.std(correction=0)) * math.sqrt(folds - 1)
    half = student_t_quantile(float(folds - 1), 0.95) * spread
    return Measured(value, max(value - half, 0.0), min(value + half, 180.0))


def _fold_directions(run: Run, visit: MeasuredCheckpoint, site: Site) -> Float[Tensor, "fold d"] | None:
    if site not in visit.sites.get(site.part, ()):
        return None
    tensors: Sequence[str] = run.headers()[visit.unit]["tensors"]
    for key in (key.format(site.part) for key in _FOLD_KEYS):
        if key in tensors:
            at = visit.sites[site.part].index(site)
            stacked: Tensor = run.tensor_rows("directions", visit.unit, key, slice(at, at + 1))[0]
            return unit_vectors(stacked.T.contiguous())
    return None


def _rows(run: Run, names: Sequence[str]) -> "pd.DataFrame":
    listed = ", ".join(map(sql_text, names))
    return run.query(
        "select concept, stage, revision, site, method, metric, control, value, low, high, unit from records where "
        f"concept in ({listed}) and ((metric in ('auroc', 'r2', 'cv_score') and (control is null or control like 'surface%') "
        "and (method is null or method in ('logistic', 'ridge') or control is not null)) or metric like 'frozen_probe_%')"
    )


def _point(rows: "pd.DataFrame", visit: MeasuredCheckpoint) -> ConceptPoint:
    own = rows[(rows["unit"] == visit.unit) & rows["control"].isna()]
    metric = "r2" if (own["metric"] == "r2").any() else "auroc"
    chosen = own[own["metric"] == "cv_score"].dropna(subset=["value"])
    resid = chosen[chosen["site"].str.startswith("resid")]
    chosen = resid if len(resid) else chosen
    if len(chosen):
        best = chosen.iloc[int(chosen["value"].to_numpy().argmax())]
        site, method = str(best["site"]), str(best["method"])
        score = _measured(own[(own["metric"] == metric) & (own["site"] == site) & (own["method"] == method)])
    else:
        site, score = "", Measured()
    here = rows[(rows["stage"] == visit.stage) & (rows["revision"] == visit.checkpoint)]
    frozen = {
        name: _measured(here[here["metric"] == f"frozen_probe_{name}"]) for name in ("auroc", "confidence_change")
    }
    return ConceptPoint(
        visit.stage, visit.step, visit.checkpoint, score, site, metric, frozen["confidence_change"], frozen["auroc"]
    )


def _measured(rows: "pd.DataFrame") -> Measured:
    if not len(rows):
        return Measured()
    row: Any = rows.iloc[0]
    return Measured(float(row["value"]), float(row["low"]), float(row["high"]))
