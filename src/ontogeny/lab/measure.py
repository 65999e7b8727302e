"""Everything measured of one concept at one checkpoint: probes with intervals and floors, dependence, geometry, behaviour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny import plugins
from ontogeny.fits import Fitted
from ontogeny.fits._basis import Basis
from ontogeny.fits._moments import Moments
from ontogeny.lab import controls, dependence, scoring, twins
from ontogeny.lab.design import Design
from ontogeny.lab.rows import About, cells
from ontogeny.lab.settings import Settings
from ontogeny.metrics import information, separability
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap

SCALES = {"mass_mean": "unit", "logistic": "weight", "pca": "unit", "leace": "raw", "ridge": "weight"}
"""What the length of each fit's direction means."""
PROBES = {"logistic", "ridge"}
"""Fits that choose a strength on train and report the score they chose it by: what layer choices are made with."""
READERS = {"logistic", "mass_mean"}
"""Fits whose scores classify: a spectrum or an erasure reads nothing."""


@dataclass
class Measured:
    """What one unit leaves behind."""

    records: list[Record] = field(default_factory=list)
    directions: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    """Held-out scores by method and part: series across checkpoints are made from them."""
    header: dict[str, Any] = field(default_factory=dict)


def measure(
    design: Design,
    parts: Mapping[str, Float[Tensor, "site example d"]],
    sites: Mapping[str, Sequence[Site]],
    inputs: Float[Tensor, "example d"],
    settings: Settings,
) -> Measured:
    """All rows, directions and held-out scores of a concept at a checkpoint."""
    concept, design = design.concept, design.on(inputs.device)
    about = About(concept.name, str(concept.position), len(design.split.test), settings.seed)
    done = Measured(header={"concept": concept.name, "position": str(concept.position), "sign": concept.sign})
    methods = fits_for(design, settings)
    for part, activations in parts.items():
        x, train = activations, activations[:, design.split.train]
        shared = _Shared.of(train, design)
        fitted = {name: _fit(name, x, train, shared, design, settings) for name in methods}
        for name, fit in fitted.items():
            _keep(done, name, part, fit)
            held_out = fit.scores(x[:, design.split.test])
            done.scores[f"{name}/{part}"] = held_out.float().cpu()
            done.records += probe_rows(design, about, name, fit, held_out, sites[part], settings)
            done.records += twins.rows(design, about, name, held_out, sites[part]) if name in READERS else []
        probe = next(name for name in methods if name in PROBES)
        done.records += controls.rows(design, about, probe, fitted, shared.basis, x, sites[part], settings)
        if part == "resid":
            moments = shared.moments if torch.equal(design.dependence_rows, design.split.train) else None
            known = None if moments is None else moments.variances
            done.records += dependence.rows(design, about, x, inputs, sites[part], settings, variances=known)
    # Whose scores these are: what thresholds are set on, long after the concept's file is gone.
    done.scores |= {"labels": design.y_test.float().cpu(), "groups": design.groups[design.split.test].cpu()}
    done.header |= {
        "methods": {name: SCALES.get(name, "raw") for name in methods},
        "sites": {part: [str(site) for site in sites[part]] for part in parts},
    }
    return done


def fits_for(design: Design, settings: Settings) -> list[str]:
    """The fits that this concept can have, its probe first."""
    kind = design.concept.kind
    named = ["ridge"] if kind == "number" else list(settings.fits)
    modules = {name: plugins.load("fits", name) for name in dict.fromkeys([*_probe(kind), *named])}
    return [name for name, m in modules.items() if kind in m.targets and not (m.needs_pairs and design.pairs is None)]


def _probe(kind: str) -> list[str]:
    return ["ridge"] if kind == "number" else ["logistic"]


@dataclass(frozen=True)
class _Shared:
    """What several fits need of the training rows of a part, made once."""

    basis: Basis
    moments: Moments | None
    """Where examples outnumber dimensions; else the d × d matrices would be the larger part of the work."""

    @classmethod
    def of(cls, train: Float[Tensor, "site train d"], design: Design) -> "_Shared":
        y = design.y_train
        plain = y.dtype == torch.bool and train.shape[1] > train.shape[2]
        return cls(Basis.of(train), Moments.of(train, y[:, None].double()) if plain else None)

    def given(self, fit: str) -> dict[str, Basis | Moments | None]:
        if fit in PROBES:
            return {"basis": self.basis}
        return {"moments": self.moments} if fit in ("pca", "leace") else {}


def _fit(
    name: str,
    x: Float[Tensor, "site example d"],
    train: Float[Tensor, "site train d"],
    shared: "_Shared",
    design: Design,
    settings: Settings,
) -> Fitted:
    module, inside = plugins.load("fits", name), design.split.train
    pairs = design.pairs[inside] if design.pairs is not None else None
    fit: Fitted = module.fit(
        train, design.y_train, groups=design.groups[inside], pairs=pairs, seed=settings.seed, **shared.given(name)
    )
    if name == "logistic" and settings.protocol == "paper" and design.y.dtype == torch.bool:
        return _as_published(fit, module, x, design)
    return fit


def _as_published(fit: Fitted, module: ModuleType, x: Float[Tensor, "site example d"], design: Design) -> Fitted:
    """Logistic regression with C = 1 on activations z-scored over train and test together: a leak, and the paper's protocol."""
    spread = x.std(1, keepdim=True)
    spread, mean, train = spread.where(spread > 0, 1.0), x.mean(1, keepdim=True), design.split.train
    strength = x.new_ones(len(x))
    z = (x[:, train] - mean) / spread
    published = module.refit(z, design.y_train[None], strength, standardise=False, tolerance=1e-6)
    direction = published.direction / spread.mT
    bias = published.bias - (mean.mT * direction).sum(1)
    return Fitted(direction, bias, {**fit.facts, "strength": strength})


def probe_rows(
    design: Design,
    about: About,
    method: str,
    fit: Fitted,
    held_out: Float[Tensor, "site example k"],
    sites: Sequence[Site],
    settings: Settings,
) -> list[Record]:
    """Scores on the held-out groups with their intervals, and what the fit says of itself."""
    y, rows = design.y_test, []
    for metric in scoring.metrics_of(design.concept.kind):
        value = scoring.point(metric, held_out, y)
        resampled = scoring.samples(metric, held_out, y, design.weights)
        ends = scoring.interval(metric, value, resampled, design.test_groups)
        rows += cells(about, metric, value, sites, method=method, interval=ends)
    if method in PROBES and "cv_score" in fit.facts:
        reason = "no inner fold holds every class"
        rows += cells(
            about,
            "cv_score",
            fit.facts["cv_score"],
            sites,
            method=method,
            split="train",
            n=len(design.y_train),
            reason=reason,
        )
    if method == "logistic":
        rows += _nats(design, about, held_out, sites)
    if method == "mass_mean" and y.dtype == torch.bool:
        rows += cells(about, "fisher", separability.fisher(held_out[..., 0], y), sites, method=method)
        for metric, fact in (("class_gap", "gap"), ("projection_std", "std")):
            rows += cells(
                about, metric, fit.facts[fact][:, 0], sites, method=method, split="train", n=len(design.y_train)
            )
    return rows


def _nats(
    design: Design, about: About, held_out: Float[Tensor, "site example k"], sites: Sequence[Site]
) -> list[Record]:
    each = information.contributions(held_out, design.y_test)
    resampled = bootstrap.mean_samples(each, design.weights)
    ends = bootstrap.interval(each.mean(-1), resampled, groups=design.test_groups)
    return cells(about, "nats_bound", each.mean(-1), sites, method="logistic", interval=ends)


def _keep(done: Measured, method: str, part: str, fit: Fitted) -> None:
    done.directions[f"{method}/{part}/direction"] = fit.direction.float().cpu()
    done.directions[f"{method}/{part}/bias"] = fit.bias.float().cpu()
    for name, value in fit.facts.items():
        done.directions[f"{method}/{part}/facts/{name}"] = value.float().cpu()
