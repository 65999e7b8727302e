"""Measure one concept at one checkpoint: probes with intervals and baselines, dependence, geometry."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny import plugins
from ontogeny.measurements import controls, dependence, fragility, robustness, scores
from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.measurements.design import Design
from ontogeny.measurements.held_out_probe import HeldOutProbe
from ontogeny.measurements.refit_null import refit_null
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.measurements.settings import TraceSettings
from ontogeny.measurements.training_statistics import TrainingStatistics
from ontogeny.metrics import information, separability
from ontogeny.probes import FoldProbes, Probe, training_masks
from ontogeny.records import Record
from ontogeny.sites import Site

_DIRECTION_SCALES = {"mass_mean": "unit", "logistic": "weight", "pca": "unit", "leace": "raw", "ridge": "weight"}
"""Meaning of the length of each probe's direction."""
PROBE_METHODS = {"logistic", "ridge"}
"""Probes that choose their regularisation by cross-validation; its score selects the best site."""
NULL_METHODS = ("logistic", "ridge", "mass_mean")
"""Probes whose scores are tested; each has a closed form for refits."""
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
        shared = TrainingStatistics.of(train, design)
        fitted = {name: _fit(name, x, train, shared, design, settings) for name in methods}
        out_of_fit: dict[str, Tensor] = {}
        scored: dict[str, CrossFittedScores | None] = {}
        for name, fit in fitted.items():
            _keep_direction(done, name, part, fit.probe)
            out_of_fit[name] = held_out = fit.held_out_scores(x, design)
            done.scores[f"{name}/{part}"] = held_out.float().cpu()
            if fit.folds is not None and name in NULL_METHODS:
                if part in best_site_parts(parts):
                    _keep_fold_directions(done, name, part, fit.folds)
                done.scores |= _null(name, part, x, fit.probe, shared, design)
            out = scores.cross_fitted_scores(held_out, design, width=x.shape[-1], method=name)
            scored[name] = out
            done.records += probe_rows(design, about, name, fit.probe, held_out, sites[part], cross_fitted=out)
            done.records += (
                robustness.robustness_rows(design, about, name, held_out, sites[part])
                if name in _READOUT_METHODS
                else []
            )
            if name == "logistic":
                done.records += fragility.fragility_rows(
                    design, about, name, fit, held_out, x, sites[part], cross_fitted=out
                )
        probe = next(name for name in methods if name in PROBE_METHODS)
        done.records += controls.probe_control_rows(
            design,
            about,
            probe,
            fitted,
            out_of_fit[probe],
            shared.basis,
            x,
            sites[part],
            settings,
            cross_fitted=scored[probe],
        )
        if part == "resid":
            done.records += dependence.dependence_rows(
                design, about, x, inputs, sites[part], settings, moments=shared.moments
            )
    # Labels and groups of the scores, so that a monitor needs no concept file.
    done.scores |= {"labels": design.y_test.float().cpu(), "groups": design.groups[design.split.test].cpu()}
    if design.test_folds is not None:
        done.scores["folds"] = design.test_folds.cpu()
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


def best_site_parts(parts: Iterable[str]) -> list[str]:
    """Parts in which the best site is looked for: the residual stream if it was read."""
    return ["resid"] if "resid" in parts else list(parts)


def _fit(
    name: str,
    x: Float[Tensor, "site example d"],
    train: Float[Tensor, "site train d"],
    shared: TrainingStatistics,
    design: Design,
    settings: TraceSettings,
) -> HeldOutProbe:
    module, inside = plugins.load_plugin("probes", name), design.split.train
    columns: dict[str, Any] = {
        "groups": design.groups[inside],
        "pairs": design.pairs[inside] if design.pairs is not None else None,
        "seed": settings.seed,
    }
    if design.test_folds is not None:
        return _fit_folds(name, module, train, design.y_train, design.test_folds, shared, columns)
    fit: Probe = module.fit(train, design.y_train, **columns, **shared.given(name))
    if name == "logistic" and settings.protocol == "paper" and design.y.dtype == torch.bool:
        return HeldOutProbe(_fit_paper_protocol(fit, module, x, design))
    return HeldOutProbe(fit)


def _fit_folds(
    name: str,
    module: ModuleType,
    x: Tensor,
    y: Tensor,
    folds: Tensor,
    shared: TrainingStatistics,
    columns: Mapping[str, Any],
) -> HeldOutProbe:
    """By the probe's own `fit_folds`, or by a fit for each fold."""
    if hasattr(module, "fit_folds"):
        fits = shared.fold_probes(name, module.fit_folds, x, y, {"folds": folds, **columns})
        return HeldOutProbe(fits.probe, fits)
    each = []
    for mask in training_masks(folds):
        own = {k: v[mask] if isinstance(v, Tensor) else v for k, v in columns.items()}
        each.append(module.fit(x[:, mask], y[mask], **own))
    fits = FoldProbes.of(module.fit(x, y, **columns), each)
    return HeldOutProbe(fits.probe, fits)


def _null(
    name: str, part: str, x: Tensor, probe: Probe, shared: TrainingStatistics, design: Design
) -> dict[str, Tensor]:
    assert design.test_folds is not None
    null = refit_null(
        name,
        x,
        design.y,
        design.test_folds,
        design.permutations,
        basis=shared.basis,
        strength=probe.facts.get("strength"),
    )
    return null.tensors(f"{name}/{part}")


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
    *,
    cross_fitted: CrossFittedScores | None,
) -> list[Record]:
    """Scores on the held-out groups with intervals, and statistics of the fit."""
    y, rows = design.y_test, []
    for metric in scores.metrics_for(design.concept.kind):
        value, ends = scores.design_scores(metric, held_out, design, cross_fitted)
        note = scores.few_of_class(y) if metric == "auroc" else None
        rows += site_rows(about, metric, value, sites, method=method, interval=ends, note=note)
    on_train = partial(site_rows, about, sites=sites, method=method, split="train", n=len(design.y_train))
    if method in PROBE_METHODS and "cv_score" in fit.facts:
        rows += on_train("cv_score", fit.facts["cv_score"], reason="no inner fold holds every class")
    if method == "logistic":
        rows += _information_rows(design, about, held_out, sites, cross_fitted)
    if method == "mass_mean" and y.dtype == torch.bool:
        rows += site_rows(about, "fisher", separability.fisher(held_out[..., 0], y), sites, method=method)
        for metric, fact in (("class_gap", "gap"), ("projection_std", "std")):
            rows += on_train(metric, fit.facts[fact][:, 0])
    return rows


def _information_rows(
    design: Design,
    about: RowContext,
    held_out: Float[Tensor, "site example k"],
    sites: Sequence[Site],
    cross_fitted: CrossFittedScores | None,
) -> list[Record]:
    each = information.nats_contributions(held_out, design.y_test)
    ends = scores.design_mean(each, design, None if cross_fitted is None else cross_fitted.fit_share)
    return site_rows(about, "nats_bound", each.mean(-1), sites, method="logistic", interval=ends)


def _keep_fold_directions(done: ConceptMeasurement, method: str, part: str, fits: FoldProbes) -> None:
    """Of the probes of the folds, for work that applies them to their own fold."""
    done.directions[f"{method}/{part}/folds/direction"] = fits.direction[..., 0].float().cpu()
    done.directions[f"{method}/{part}/folds/bias"] = fits.bias[..., 0].float().cpu()


def _keep_direction(done: ConceptMeasurement, method: str, part: str, fit: Probe) -> None:
    done.directions[f"{method}/{part}/direction"] = fit.direction.float().cpu()
    done.directions[f"{method}/{part}/bias"] = fit.bias.float().cpu()
    for name, value in fit.facts.items():
        done.directions[f"{method}/{part}/facts/{name}"] = value.float().cpu()
