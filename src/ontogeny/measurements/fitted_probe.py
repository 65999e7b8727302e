"""Fit one probe to captured activations, at every site, with the probe plug-ins that a trace uses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ontogeny import plugins
from ontogeny.activations.activations import ActivationOrigin, Activations, unknown_site
from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.measurements.measure import direction_scale
from ontogeny.measurements.scores import metrics_for, score
from ontogeny.notebook import rich_html
from ontogeny.probes import Probe
from ontogeny.sites import Site

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe of one method at each site of some activations; made by `fit_probe`."""

    method: str
    parts: Mapping[str, Probe]
    """Readouts of all sites of each part."""
    sites: Mapping[str, tuple[Site, ...]]
    origin: ActivationOrigin
    """The texts that it was fitted on."""

    def scores(self, activations: Activations, site: Site | str) -> Float[Tensor, "example k"]:
        """Score of each example at one site, positive for the positive class; k = 1 for two classes and for numbers.

        Raises:
            BadInput: the probe or the activations lack the site, or the activations have another width.
        """
        readout, at = self.readout(site)
        x = activations[site]
        if x.shape[-1] != readout.direction.shape[1]:
            raise BadInput(
                f"activations at {site} must have {readout.direction.shape[1]} dimensions for this probe, got {x.shape[-1]}: read a model "
                "of this width."
            )
        one_site = Probe(readout.direction[at : at + 1], readout.bias[at : at + 1], {})
        return one_site.scores(x[None].to(readout.direction.device))[0]

    def score(self, activations: Activations, metric: str | None = None) -> "pandas.Series":
        """A metric at each site, as a series by site name: `probe.score(activations)["resid.6"]`.

        Args:
            activations: With labels; other examples than those of the fit, or the score says nothing about new texts.
            metric: `auroc` (by default) or `accuracy`; `r2` for numbers.

        Raises:
            BadInput: no labels, another kind of target, or an unknown metric.
        """
        import pandas

        y, kind = activations.labels, self.origin.kind
        known = metrics_for(kind)
        metric = metric or known[0]
        if metric not in known:
            raise BadInput(
                f"`metric` must be {' or '.join(known)} for a target of the kind {kind}, got {metric!r}: choose one."
            )
        if activations.origin is not None and activations.origin.kind != kind:
            raise BadInput(
                f"activations must have a target of the kind {kind} for this probe, got {activations.origin.kind}: capture another concept."
            )
        values = {}
        for group in self.sites.values():
            for site in group:
                scores = self.scores(activations, site)
                values[str(site)] = float(score(metric, scores[None], y.to(scores.device))[0])
        return pandas.Series(values, name=metric)

    def is_fitted(self, site: Site | str) -> bool:
        """Whether there is a direction at a site; not where all examples are alike, as embeddings of one last token are."""
        readout, at = self.readout(site)
        return bool(readout.direction[at].isfinite().all())

    def direction(self, site: Site | str) -> Direction:
        """The direction at one site, as `Run.direction` gives it: `probe.direction("resid.6")`.

        Raises:
            BadInput: the probe lacks the site, has more than two classes, or its examples do not differ there.
        """
        readout, at = self.readout(site)
        vector = readout.direction[at]
        if vector.shape[-1] != 1:
            raise BadInput(
                f"{self.origin.name} must have two classes for a direction, got {vector.shape[-1]}: read `parts` for the matrix."
            )
        if not self.is_fitted(site):
            raise BadInput(f"{site} has no direction, since all examples are alike there: choose another site.")
        facts = {name: float(values[at]) for name, values in readout.facts.items() if values[at].numel() == 1}
        return Direction(
            vector=vector[:, 0].float().cpu(),
            site=Site.parse(str(site)),
            origin=f"{self.origin.name}@{self.origin.model}/{self.method}",
            scale=direction_scale(self.method),
            position=self.origin.position,
            facts=facts,
            sign=self.origin.classes[1] if len(self.origin.classes) == 2 else "",
            tokenizer=self.origin.tokenizer,
        )

    def readout(self, site: Site | str) -> tuple[Probe, int]:
        """The readouts of the site's part, and the index of the site among them."""
        wanted = Site.parse(str(site))
        if wanted not in self.sites.get(wanted.part, ()):
            raise unknown_site(wanted, self.sites)
        return self.parts[wanted.part], self.sites[wanted.part].index(wanted)

    def _repr_html_(self) -> str:
        return rich_html("probe", self)


def fit_probe(
    activations: Activations,
    method: str = "mass_mean",
    *,
    labels: Shaped[Tensor, " example"] | None = None,
    seed: int = 0,
) -> FittedProbe:
    """Fit a probe at every site of some activations, on all their examples.

    It is a plain fit: no example is held out, and nothing is cross-fitted. For a score on new texts, fit on a part
    (`activations.select(…)`) and score the rest; a trace holds groups out by itself.

    Args:
        activations: From `capture`.
        method: A probe of `list_plugins("probes")`: mass_mean (arXiv:2310.06824), logistic, leace (arXiv:2306.03819), pca
            (arXiv:2310.01405), or ridge for numbers.
        labels: Target of each example, if the activations have none: bool, class indices (int64) or numbers.
        seed: Of the inner folds that choose a regularisation.

    Raises:
        BadInput: no labels, an unknown method, or a method that does not take this kind of target.
    """
    module = plugins.load_plugin("probes", method)
    y = activations.labels if labels is None else torch.as_tensor(labels)
    kind = {torch.bool: "binary", torch.int64: "classes"}.get(y.dtype, "number")
    if kind not in module.targets:
        fitting = [
            name for name in plugins.list_plugins("probes") if kind in plugins.load_plugin("probes", name).targets
        ]
        raise BadInput(f"`method` must take a target of the kind {kind}, got {method!r}: use {' or '.join(fitting)}.")
    origin = activations.origin
    if origin is None:
        raise BadInput("activations must come from `capture` for a probe, got those of a trace: capture the texts.")
    pairs = origin.pairs
    if module.needs_pairs and pairs is None:
        raise BadInput(f"{method} needs contrast pairs, got texts without: make the concept with Concept.from_pairs.")
    parts = {}
    for part, x in activations.parts.items():
        given = {"groups": activations.groups.to(x.device), "pairs": None if pairs is None else pairs.to(x.device)}
        parts[part] = module.fit(x, y.to(x.device), seed=seed, **given)
    sites = {part: tuple(group) for part, group in activations.sites.items()}
    described = origin if labels is None else _with_labels(origin, y, kind)
    return FittedProbe(method, parts, sites, described)


def _with_labels(origin: ActivationOrigin, labels: Tensor, kind: str) -> ActivationOrigin:
    return replace(origin, labels=labels, kind=kind, classes=())  # type: ignore[arg-type]
