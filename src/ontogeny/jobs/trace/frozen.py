"""Frozen probe of a run: the probe of the first checkpoint at which a concept can be read, applied to every later one.

The probe of each checkpoint is refitted there, so its score says whether the concept can be read at all. The frozen one keeps its
direction and its bias, so its score says whether the concept stays where it was: a monitor that was set then would see the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.activations import Activations
from ontogeny.measurements.design import Design
from ontogeny.measurements.measure import ConceptMeasurement, best_site_parts
from ontogeny.measurements.rows import CheckpointStamp, RowContext
from ontogeny.measurements.scores import cross_fitted_scores, design_scores
from ontogeny.probes import FoldProbes, Probe
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.storage.files import content_digest
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

FROZEN_PROBE = "logistic"
_CHANCE = 0.5


@dataclass(frozen=True, eq=False)
class _Source:
    """A probe at the checkpoint and the site where it was frozen."""

    stage: str
    step: int | None
    site: Site
    probes: FoldProbes | Probe
    confidence: Float[Tensor, " test"]
    """Of the probe in each held-out example, at that checkpoint."""

    @property
    def coords(self) -> dict[str, str]:
        return {"source_stage": self.stage, "source_step": f"{self.step}"}


class FrozenProbes:
    """The frozen probe of each concept of a run, found again when the run is continued."""

    def __init__(self) -> None:
        self.sources: dict[str, _Source] = {}

    def keep(
        self,
        run: Run,
        design: Design,
        activations: Activations,
        measured: ConceptMeasurement,
        stamp: CheckpointStamp,
        header: Mapping[str, Any],
    ) -> None:
        """Write the scores of the frozen probe at a checkpoint that was just measured; freeze its probe if no probe is frozen yet."""
        name = design.concept.name
        if design.concept.kind != "binary" or FROZEN_PROBE not in measured.header["methods"]:
            return
        source = self.sources.get(name) or _source_in_run(run, design, header)
        if source is None:
            site = _readable_site(measured, activations)
            if site is None:
                return
            tensors = {**measured.directions, **measured.scores}
            source = _source_of(design, tensors, activations.sites[site.part], site, header["stage"], header["step"])
        self.sources[name] = source
        if source.site not in activations.sites.get(source.site.part, ()):
            return
        unit = frozen_unit(name, header["stage"], header["checkpoint"])
        rows = frozen_probe_rows(design, activations[source.site], source)
        run.keep(unit, CheckpointStamp(stamp.lineage, unit, **_place(stamp)).on(rows))


def frozen_unit(concept: str, stage: str | None, checkpoint: str) -> str:
    """Unit of the rows of the frozen probe of a concept at a checkpoint."""
    return f"frozenprobe-{content_digest([concept, stage, checkpoint])}"


def frozen_probe_rows(design: Design, x: Float[Tensor, "example d"], source: _Source) -> list[Record]:
    """AUROC of the frozen probe, its mean confidence, and the change of it since it was frozen, paired by example."""
    design = design.on(x.device)
    held_out = _held_out_scores(design, x, source.probes)
    cross_fitted = cross_fitted_scores(held_out[None], design, width=x.shape[-1])
    value, ends = design_scores("auroc", held_out[None], design, cross_fitted)
    about = RowContext(design.concept.name, str(design.concept.position), len(design.y_test), 0)
    confidence = _confidence(held_out)
    change = (confidence - source.confidence.to(confidence))[None]
    interval = _mean_interval(change, design)
    shared: dict[str, Any] = {"method": FROZEN_PROBE, "coords": source.coords}
    return [
        about.row("frozen_probe_auroc", float(value), source.site, interval=ends[0].ends, reason="one class", **shared),
        about.row(
            "frozen_probe_confidence",
            float(confidence.mean()),
            source.site,
            interval=_mean_interval(confidence[None], design),
            reason="scores are not finite",
            **shared,
        ),
        about.row(
            "frozen_probe_confidence_change",
            float(change.mean()),
            source.site,
            interval=interval,
            reason="scores are not finite",
            **shared,
        ),
    ]


def _mean_interval(each: Float[Tensor, "1 test"], design: Design) -> tuple[float, float]:
    samples = bootstrap.mean_samples(each, design.weights)
    return bootstrap.percentile_interval(each.mean(-1), samples, groups=design.test_groups)[0].ends


def _confidence(scores: Float[Tensor, "test 1"]) -> Float[Tensor, " test"]:
    """Probability of the class that the probe decides for, 0.5 to 1."""
    return scores[:, 0].float().abs().sigmoid()


def _held_out_scores(
    design: Design, x: Float[Tensor, "example d"], probes: FoldProbes | Probe
) -> Float[Tensor, "test 1"]:
    if isinstance(probes, Probe):
        return Probe(probes.direction.to(x.device), probes.bias.to(x.device), {}).scores(x[None, design.split.test])[0]
    assert design.test_folds is not None
    moved = FoldProbes(probes.probe, probes.direction.to(x.device), probes.bias.to(x.device))
    return moved.held_out_scores(x[None], design.test_folds)[0]


def _source_of(
    design: Design, tensors: Mapping[str, Tensor], sites: Any, site: Site, stage: str, step: int | None
) -> _Source:
    """The source from the directions and the held-out scores of a unit."""
    at, key = list(sites).index(site), f"{FROZEN_PROBE}/{site.part}"
    one = slice(at, at + 1)
    whole = Probe(tensors[f"{key}/direction"][one], tensors[f"{key}/bias"][one], {})
    probes: FoldProbes | Probe = whole
    if design.test_folds is not None:
        direction, bias = (tensors[f"{key}/folds/{name}"][one, ..., None] for name in ("direction", "bias"))
        probes = FoldProbes(whole, direction, bias)
    return _Source(stage, step, site, probes, _confidence(tensors[key][at]))


def _source_in_run(run: Run, design: Design, header: Mapping[str, Any]) -> _Source | None:
    """The source that an earlier session froze, if its unit is still there."""
    name = design.concept.name
    rows = run.query(
        "select distinct site, coords['source_stage'] as stage, coords['source_step'] as step from records "
        f"where metric = 'frozen_probe_auroc' and concept = {sql_text(name)}"
    )
    for row in rows.to_dict("records"):
        for unit, other in run.headers().items():
            place = other["concept"], other["stage"], str(other["step"])
            if place == (name, row["stage"], row["step"]) and FROZEN_PROBE in other["methods"]:
                site = Site.parse(str(row["site"]))
                sites = [Site.parse(s) for s in other["sites"].get(site.part, ())]
                key = f"{FROZEN_PROBE}/{site.part}"
                names = [f"{key}/direction", f"{key}/bias"]
                names += [f"{key}/folds/direction", f"{key}/folds/bias"] if design.test_folds is not None else []
                tensors = {**run.directions(unit, names), **run.scores(unit, [key])}
                return _source_of(design, tensors, sites, site, other["stage"], other["step"])
    return None


def _readable_site(measured: ConceptMeasurement, activations: Activations) -> Site | None:
    """The best site on the training groups, if the interval of its held-out AUROC lies above chance; else None."""
    parts = best_site_parts(activations.parts)
    score: dict[str, float] = {}
    low: dict[str, float] = {}
    for record in measured.records:
        if record.method == FROZEN_PROBE and record.control is None and record.site:
            if record.metric == "cv_score":
                score[record.site] = record.value
            elif record.metric == "auroc":
                low[record.site] = record.low
    known = {site: value for site, value in score.items() if value == value and Site.parse(site).part in parts}
    if not known:
        return None
    best = max(known, key=lambda site: known[site])
    return Site.parse(best) if low.get(best, torch.nan) > _CHANCE else None


def _place(stamp: CheckpointStamp) -> dict[str, Any]:
    return {name: getattr(stamp, name) for name in ("stage", "step", "tokens", "revision", "train_seed")}
