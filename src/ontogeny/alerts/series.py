"""Series of a run for alerts and live views: each concept at its best site of each checkpoint, read from the records and directions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.alerts.detection import ConceptPoint, Measured, WatchedSeries
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
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
        self.points: dict[str, ConceptPoint] = {}
        """By unit."""
        self.directions: dict[tuple[str, str], Float[Tensor, "fold d"] | None] = {}

    def read(self, concepts: Sequence[str] = ()) -> list[WatchedSeries]:
        """The series of each concept and stage, in the order of run.json; all concepts by default."""
        about = self.run.about
        kinds = {str(entry["name"]): entry.get("kind", "binary") for entry in about.get("concepts", ())}
        names = list(concepts) or list(kinds)
        if not names:
            return []
        parents: Mapping[str, str | None] = about.get("lineage", {}).get("parents") or {}
        visits = {name: measured_checkpoints(self.run, name) for name in names}
        self._read_points([visit for of in visits.values() for visit in of if visit.unit not in self.points])
        surface = _surface_scores(self.run, names)
        series = []
        for name, measured in visits.items():
            by_stage: dict[str, list[MeasuredCheckpoint]] = {}
            for visit in measured:
                by_stage.setdefault(visit.stage, []).append(visit)
            for stage, own in by_stage.items():
                up = by_stage.get(parents.get(stage) or "", [])[-1:]
                one = self._series(name, surface, [*up, *own], len(up))
                # Several classes have several directions, of which none is the one of the concept.
                series.append(replace(one, angle=lambda *_: Measured()) if kinds.get(name) == "classes" else one)
        return series

    def _read_points(self, visits: Sequence[MeasuredCheckpoint]) -> None:
        if visits:
            rows = _rows(self.run, visits)
            self.points |= {visit.unit: _point(rows, visit) for visit in visits}

    def _series(
        self,
        name: str,
        surface: Mapping[tuple[str, str], float],
        visits: Sequence[MeasuredCheckpoint],
        inherited: int,
    ) -> WatchedSeries:
        points = tuple(self.points[visit.unit] for visit in visits)
        metric = points[0].metric
        floor = max(_CHANCE[metric], surface.get((name, metric), 0.0))

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


def _surface_scores(run: Run, names: Sequence[str]) -> dict[tuple[str, str], float]:
    """The best surface baseline of each concept and metric."""
    rows = run.query(
        "select concept, metric, max(value) as best from records where metric in ('auroc', 'r2') and control like 'surface%' "
        f"and n > 0 and concept in ({', '.join(map(sql_text, names))}) group by all"
    )
    return {
        (str(concept), str(metric)): float(best)
        for concept, metric, best in zip(rows["concept"], rows["metric"], rows["best"], strict=True)
    }


def _rows(run: Run, visits: Sequence[MeasuredCheckpoint]) -> "pd.DataFrame":
    """The scores of these units by the probe that chooses the best site, and those of the frozen probe at their checkpoints."""
    units = ", ".join(sql_text(visit.unit) for visit in visits)
    places = ", ".join(sorted({sql_text(visit.revision or visit.checkpoint) for visit in visits}))
    resid = "and site like 'resid%' " if all("resid" in visit.sites for visit in visits) else ""
    return run.query(
        "select concept, stage, revision, site, method, metric, value, low, high, unit from records where "
        f"(unit in ({units}) and metric in ('auroc', 'r2', 'cv_score') and control is null and method in ('logistic', 'ridge') {resid}) "
        f"or (metric like 'frozen_probe_%' and revision in ({places}))"
    )


def _point(rows: "pd.DataFrame", visit: MeasuredCheckpoint) -> ConceptPoint:
    own = rows[rows["unit"] == visit.unit]
    metric = "r2" if (own["metric"] == "r2").any() else "auroc"
    chosen = own[own["metric"] == "cv_score"].dropna(subset=["value"])
    if len(chosen):
        best = chosen.iloc[int(chosen["value"].to_numpy().argmax())]
        site, method = str(best["site"]), str(best["method"])
        score = _measured(own[(own["metric"] == metric) & (own["site"] == site) & (own["method"] == method)])
    else:
        site, score = "", Measured()
    concept = own["concept"].iloc[0] if len(own) else ""
    place = visit.revision or visit.checkpoint
    here = rows[(rows["concept"] == concept) & (rows["stage"] == visit.stage) & (rows["revision"] == place)]
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
