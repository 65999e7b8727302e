"""Measure one concept at one checkpoint: probes with intervals and baselines, dependence, geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny import plugins
from ontogeny.linalg.moments import Moments
from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.measurements import controls, dependence, robustness, scores
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics import information, separability
from ontogeny.probes import Probe
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap

_DIRECTION_SCALES = {"mass_mean": "unit", "logistic": "weight", "pca": "unit", "leace": "raw", "ridge": "weight"}
"""Meaning of the length of each probe's direction."""
PROBE_METHODS = {"logistic", "ridge"}
"""Probes that choose their regularisation by cross-validation; its score selects the best site."""
_READOUT_METHODS = {"logistic", "mass_mean"}
"""Probes whose scores classify; PCA and LEACE do not."""


@dataclass
class ConceptMeasurement:
    """Results of one unit."""

    records: list[Record] = field(default_factory=list)
    directions: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    """Held-out scores by method and part, for summaries over checkpoints."""
    header: dict[str, Any] = field(default_factory=dict)


def measure_concept(
    design: Design,
    parts: Mapping[str, Float[Tensor, "site example d"]],
    sites: Mapping[str, Sequence[Site]],
    inputs: Float[Tensor, "example d"],
    settings: TraceSettings,
) -> ConceptMeasurement:
    """All rows, directions and held-out scores of a concept at a checkpoint."""
    concept, design = design.concept, design.on(inputs.device)
    about = design.row_context(settings.seed)
    done = ConceptMeasurement(header={"concept": concept.name, "position": str(concept.position), "sign": concept.sign})
    methods = probes_for(design, settings)
    for part, activations in parts.items():
        x, train = activations, activations[:, design.split.train]
        shared = _TrainingStatistics.of(train, design)
        fitted = {name: _fit(name, x, train, shared, design, settings) for name in methods}
        for name, fit in fitted.items():
            _keep_direction(done, name, part, fit)
            held_out = fit.scores(x[:, design.split.test])
            done.scores[f"{name}/{part}"] = held_out.float().cpu()
            done.records += probe_rows(design, about, name, fit, held_out, sites[part], settings)
            done.records += (
                robustness.robustness_rows(design, about, name, held_out, sites[part])
                if name in _READOUT_METHODS
                else []
            )
        probe = next(name for name in methods if name in PROBE_METHODS)
        done.records += controls.probe_control_rows(
            design, about, probe, fitted, shared.basis, x, sites[part], settings
        )
        if part == "resid":
            moments = shared.moments if torch.equal(design.dependence_rows, design.split.train) else None
            known = None if moments is None else moments.variances
            done.records += dependence.dependence_rows(design, about, x, inputs, sites[part], settings, variances=known)
    # Labels and groups of the scores, so that a monitor needs no concept file.
    done.scores |= {"labels": design.y_test.float().cpu(), "groups": design.groups[design.split.test].cpu()}
    done.header |= {
        "methods": {name: direction_scale(name) for name in methods},
        "sites": {part: [str(site) for site in sites[part]] for part in parts},
    }
    return done


def direction_scale(method: str) -> str:
    """Meaning of the length of a probe's direction, see `Direction.scale`."""
    return _DIRECTION_SCALES.get(method, "raw")


def probes_for(design: Design, settings: TraceSettings) -> list[str]:
    """Probes that can be fitted to this concept, the one that selects its best site first."""
    kind = design.concept.kind
    named = ["ridge"] if kind == "number" else list(settings.fits)
    modules = {name: plugins.load_plugin("probes", name) for name in dict.fromkeys([*_probe(kind), *named])}
    return [name for name, m in modules.items() if kind in m.targets and not (m.needs_pairs and design.pairs is None)]


def _probe(kind: str) -> list[str]:
    return ["ridge"] if kind == "number" else ["logistic"]


@dataclass(frozen=True)
class _TrainingStatistics:
    """Statistics of a part's training activations that several probes share."""

    basis: PrincipalAxes
    moments: Moments | None
    """None unless examples outnumber dimensions: else the d × d matrices would dominate the cost."""

    @classmethod
    def of(cls, train: Float[Tensor, "site train d"], design: Design) -> "_TrainingStatistics":
        y = design.y_train
        plain = y.dtype == torch.bool and train.shape[1] > train.shape[2]
        return cls(PrincipalAxes.of(train), Moments.of(train, y[:, None].double()) if plain else None)

    def given(self, fit: str) -> dict[str, PrincipalAxes | Moments | None]:
        if fit in PROBE_METHODS:
            return {"basis": self.basis}
        return {"moments": self.moments} if fit in ("pca", "leace") else {}


def _fit(
    name: str,
    x: Float[Tensor, "site example d"],
    train: Float[Tensor, "site train d"],
    shared: "_TrainingStatistics",
    design: Design,
    settings: TraceSettings,
) -> Probe:
    module, inside = plugins.load_plugin("probes", name), design.split.train
    pairs = design.pairs[inside] if design.pairs is not None else None
    fit: Probe = module.fit(
        train, design.y_train, groups=design.groups[inside], pairs=pairs, seed=settings.seed, **shared.given(name)
    )
    if name == "logistic" and settings.protocol == "paper" and design.y.dtype == torch.bool:
        return _fit_paper_protocol(fit, module, x, design)
    return fit


def _fit_paper_protocol(fit: Probe, module: ModuleType, x: Float[Tensor, "site example d"], design: Design) -> Probe:
    """Logistic regression with C = 1 on activations z-scored over train and test together, which leaks, as in the paper."""
    spread = x.std(1, keepdim=True)
    spread, mean, train = spread.where(spread > 0, 1.0), x.mean(1, keepdim=True), design.split.train
    strength = x.new_ones(len(x))
    z = (x[:, train] - mean) / spread
    published = module.refit(z, design.y_train[None], strength, standardise=False, tolerance=1e-6)
    direction = published.direction / spread.mT
    bias = published.bias - (mean.mT * direction).sum(1)
    return Probe(direction, bias, {**fit.facts, "strength": strength})


def probe_rows(
    design: Design,
    about: RowContext,
    method: str,
    fit: Probe,
    held_out: Float[Tensor, "site example k"],
    sites: Sequence[Site],
    settings: TraceSettings,
) -> list[Record]:
    """Scores on the held-out groups with intervals, and statistics of the fit."""
    y, rows = design.y_test, []
    for metric in scores.metrics_for(design.concept.kind):
        scored = scores.held_out_scores(metric, held_out, y, design.weights, design.test_groups)
        rows += site_rows(about, metric, scored.value, sites, method=method, interval=scored.interval)
    on_train = partial(site_rows, about, sites=sites, method=method, split="train", n=len(design.y_train))
    if method in PROBE_METHODS and "cv_score" in fit.facts:
        rows += on_train("cv_score", fit.facts["cv_score"], reason="no inner fold holds every class")
    if method == "logistic":
        rows += _information_rows(design, about, held_out, sites)
    if method == "mass_mean" and y.dtype == torch.bool:
        rows += site_rows(about, "fisher", separability.fisher(held_out[..., 0], y), sites, method=method)
        for metric, fact in (("class_gap", "gap"), ("projection_std", "std")):
            rows += on_train(metric, fit.facts[fact][:, 0])
    return rows


def _information_rows(
    design: Design, about: RowContext, held_out: Float[Tensor, "site example k"], sites: Sequence[Site]
) -> list[Record]:
    each = information.nats_contributions(held_out, design.y_test)
    resampled = bootstrap.mean_samples(each, design.weights)
    ends = bootstrap.percentile_interval(each.mean(-1), resampled, groups=design.test_groups)
    return site_rows(about, "nats_bound", each.mean(-1), sites, method="logistic", interval=ends)


def _keep_direction(done: ConceptMeasurement, method: str, part: str, fit: Probe) -> None:
    done.directions[f"{method}/{part}/direction"] = fit.direction.float().cpu()
    done.directions[f"{method}/{part}/bias"] = fit.bias.float().cpu()
    for name, value in fit.facts.items():
        done.directions[f"{method}/{part}/facts/{name}"] = value.float().cpu()
