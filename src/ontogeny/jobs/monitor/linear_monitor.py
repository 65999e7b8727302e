"""A probe of a run as a monitor that can be taken elsewhere: weight, bias and threshold, and where and how to read the activation.

The threshold is set on held-out negatives, which the probe never saw, so that a new negative passes it with the asked probability at
most. Under cross-fitting these are scored by the probes of the folds, see docs/decisions/monitor-threshold.md.
`docs/monitor.md` computes the score without this package.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import beta
from torch import Tensor

from ontogeny import architectures
from ontogeny.activations.activations import capture
from ontogeny.data.examples import class_meaning
from ontogeny.data.templates import Template, adds_special_tokens, template_of, template_text
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.monitor.monitor import (
    MONITORED_PROBES,
    HeldOut,
    bootstrap_tpr,
    check_false_positive_rates,
    held_out_examples,
)
from ontogeny.jobs.trace.reread import checkpoint_in_run
from ontogeny.lineage import Checkpoint, fetch_checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.metrics.separability import auroc, calibrated_fpr, resolves_fpr, threshold_at_fpr
from ontogeny.models.loading import empty_network, nearest_tokenizer, open_tokenizer
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.storage.files import read_tensors, write_json, write_tensors
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

MONITOR_FORMAT = "ontogeny-monitor-1"
_FILES = ("monitor.safetensors", "monitor.json")


@dataclass(frozen=True)
class CalibratedRate:
    """A rate at the monitor's threshold, on held-out examples."""

    value: float
    low: float
    high: float
    n: int
    """Number of examples."""


@dataclass(frozen=True, eq=False)
class Monitor:
    """A linear monitor: a text raises an alarm if weight · activation + bias is above the threshold."""

    weight: Float[Tensor, " d"]
    bias: float
    threshold: float
    concept: str
    positive: str
    """Which class raises the alarm, in words: '1 = harmful, 0 = harmless'."""
    method: str
    layer: int
    """The activation is the residual stream after this block; 0: before the first."""
    module: str
    """The module of the transformers model whose output (at layer 0: input) is the activation."""
    position: str
    """Tokens that are read."""
    template: str | None
    """Chat template, or text with {}, in which a text is put before it is read; None: it is read as it is."""
    add_special_tokens: bool
    """Whether the tokenizer adds its BOS and EOS to the text."""
    tokenizer: str
    """Fingerprint of the tokenizer's vocabulary."""
    model: str
    """Folder or repository of the checkpoint that the probe was fitted at."""
    stage: str
    step: int | None
    fpr: float
    """The false-positive rate that the threshold was set for."""
    false_alarms: CalibratedRate
    """On the negatives that the threshold was set on; the interval is that of the rate on new negatives."""
    caught: CalibratedRate
    """Share of the held-out positives above the threshold."""

    @property
    def site(self) -> Site:
        return Site("resid", self.layer)

    def scores(self, model: Model, texts: Sequence[str]) -> Float[Tensor, " text"]:
        """Score of each text; an alarm is a score above `threshold`.

        Raises:
            BadInput: the model has another tokenizer, width or depth.
        """
        if self.tokenizer and (here := tokenizer_fingerprint(model)) != self.tokenizer:
            raise BadInput(
                f"the model must have the tokenizer of the monitor ({self.tokenizer}), got {here}: load the model it was fitted on, or a "
                "later stage with the same tokenizer."
            )
        if model.d != len(self.weight):
            raise BadInput(f"the model must have a width of {len(self.weight)}, got {model.d}: load another.")
        read = capture(model, list(texts), str(self.site), position=self.position, template=self.template or False)
        return (read[self.site].cpu().double() @ self.weight.double() + self.bias).float()

    def alarms(self, model: Model, texts: Sequence[str]) -> list[bool]:
        """Whether each text raises an alarm."""
        return [bool(score > self.threshold) for score in self.scores(model, texts)]

    def save(self, folder: str | Path) -> Path:
        """Write the monitor as monitor.safetensors (weight, bias, threshold) and monitor.json (everything else); returns the folder."""
        target = Path(folder)
        if target.is_file():
            raise BadInput(f"`folder` must be a folder, got the file {target}: choose another name.")
        target.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight, "bias": torch.tensor(self.bias), "threshold": torch.tensor(self.threshold)}
        write_tensors(target / _FILES[0], tensors, {"format": MONITOR_FORMAT})
        about = {name: value for name, value in asdict(self).items() if name not in tensors}
        write_json(target / _FILES[1], {"format": MONITOR_FORMAT, **about})
        return target

    @classmethod
    def load(cls, folder: str | Path) -> "Monitor":
        """Read a folder of `save`.

        Raises:
            BadInput: there is no monitor in the folder, or it is damaged.
        """
        files = [Path(folder) / name for name in _FILES]
        if missing := [file.name for file in files if not file.is_file()]:
            raise BadInput(f"there is no {missing[0]} in {folder}: name the folder of a saved monitor.")
        try:
            about: dict[str, Any] = json.loads(files[1].read_text(encoding="utf-8"))
            if about.pop("format") != MONITOR_FORMAT:
                raise ValueError("another format")
            tensors = read_tensors(files[0])
            about |= {name: float(tensors[name]) for name in ("bias", "threshold")}
            about |= {name: CalibratedRate(**about[name]) for name in ("false_alarms", "caught")}
            return cls(weight=tensors["weight"], **about)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise BadInput(f"{folder} is not a monitor ({error}): save it again.") from None

    @property
    def summary(self) -> str:
        """One sentence: where it reads, at which rate, and what it catches."""
        at = f"{self.stage} {'end' if self.step is None else f'{self.step:,}'}"
        return (
            f"{self.concept}: {self.method} at {self.site} of {at}, an alarm above {self.threshold:.4g}: false alarms "
            f"{_text(self.false_alarms)} of {self.false_alarms.n} negatives, caught {_text(self.caught)} of {self.caught.n} positives"
        )


def make_monitor(
    run: Run,
    concept: str,
    *,
    fpr: float = 0.01,
    method: str | None = None,
    site: str | None = None,
    stage: str | None = None,
    step: int | None = None,
) -> Monitor:
    """The probe of a traced concept as a monitor that a share `fpr` of new negatives passes at most, on average.

    Args:
        concept: A concept of two classes.
        fpr: False-positive rate.
        method: logistic or mass_mean; by default the first that was traced.
        site: Of the residual stream; by default the best one on the training examples of the checkpoint.
        stage, step: The checkpoint; by default the last one.

    Raises:
        BadInput: an unknown concept, checkpoint, site or method; no site of the residual stream; a site that does not read the concept;
            a rate outside (0, 1), or one that needs more negatives.
    """
    check_false_positive_rates([fpr], argument="fpr")
    entry = _binary_concept(run, concept)
    visit = _checkpoint(measured_checkpoints(run, concept), concept, stage, step)
    methods = [name for name in MONITORED_PROBES if name in visit.methods]
    if not methods or (method is not None and method not in methods):
        raise unknown_name("probe of a monitor", method or "logistic", methods or MONITORED_PROBES)
    method = method or methods[0]
    place, at = _site(run, visit, site)
    held_out = held_out_examples(run, concept, visit)
    _check_negatives(held_out, fpr)
    key = f"{method}/{place.part}"
    scores: Tensor = run.scores(visit.unit)[key][at, :, 0].float()
    _check_readable(run, held_out, scores, visit, place, method)
    tensors = run.directions(visit.unit, [f"{key}/direction", f"{key}/bias"])
    rate = calibrated_fpr(held_out.negatives, fpr)
    threshold = float(threshold_at_fpr(scores[~held_out.y], rate))
    checkpoint = checkpoint_in_run(run, visit.stage, visit.checkpoint)
    template, add_special = _template(checkpoint, entry.get("template", False))
    return Monitor(
        weight=tensors[f"{key}/direction"][at, :, 0].float(),
        bias=float(tensors[f"{key}/bias"][at, 0]),
        threshold=threshold,
        concept=concept,
        positive=class_meaning(entry.get("classes", ())),
        method=method,
        layer=place.layer,
        module=_module(checkpoint, place.layer),
        position=str(entry["position"]),
        template=template,
        add_special_tokens=add_special,
        tokenizer=str(run.headers()[visit.unit].get("tokenizer") or ""),
        model=checkpoint.source,
        stage=visit.stage,
        step=visit.step,
        fpr=fpr,
        false_alarms=_false_alarms(scores, held_out, threshold),
        caught=_caught(scores, held_out, threshold, rate),
    )


def _binary_concept(run: Run, name: str) -> dict[str, Any]:
    concepts = {str(entry["name"]): entry for entry in run.about.get("concepts", ())}
    if name not in concepts:
        raise unknown_name("traced concept", name, concepts)
    if concepts[name]["kind"] != "binary":
        raise BadInput(f"a monitor needs a concept of two classes, {name} is of kind {concepts[name]['kind']}.")
    return dict(concepts[name])


def _checkpoint(
    visits: Sequence[MeasuredCheckpoint], concept: str, stage: str | None, step: int | None
) -> MeasuredCheckpoint:
    chosen = [visit for visit in visits if stage in (None, visit.stage) and step in (None, visit.step)]
    if not chosen:
        asked = " ".join(f"{name} {value}" for name, value in (("stage", stage), ("step", step)) if value is not None)
        known = ", ".join(f"{visit.stage} {visit.step}" for visit in visits[-8:]) or "none"
        raise BadInput(f"{concept} was not traced at {asked or 'any checkpoint'}; known: {known}.")
    return chosen[-1]


def _site(run: Run, visit: MeasuredCheckpoint, name: str | None) -> tuple[Site, int]:
    sites = visit.sites.get("resid", [])
    if not sites:
        raise BadInput(
            f"{run.folder} holds no site of the residual stream, which a monitor reads: trace it with `sites` resid."
        )
    site = Site.parse(name) if name else best_site(run, [visit]).site
    if site not in sites:
        raise BadInput(f"`site` must be one of {sites[0]} to {sites[-1]}, got {site}: choose a traced one.")
    return site, sites.index(site)


def _check_negatives(held_out: HeldOut, fpr: float) -> None:
    n = held_out.negatives
    if not resolves_fpr(n, fpr):
        least = f"{math.ceil(1e4 / n) / 1e4:g}" if n else "none"
        raise BadInput(
            f"`fpr` must be at least {least} with the {n} held-out negatives of {held_out.concept}, got {fpr:g}: raise it, or trace "
            f"more texts ({math.ceil(1 / fpr):,} held-out negatives)."
        )


def _check_readable(
    run: Run, held_out: HeldOut, scores: Float[Tensor, " example"], visit: MeasuredCheckpoint, site: Site, method: str
) -> None:
    """Raise unless the interval of the AUROC on held-out examples is above one half."""
    where = (
        f"metric = 'auroc' and control is null and concept = {sql_text(held_out.concept)} and method = {sql_text(method)} "
        f"and site = {sql_text(str(site))} and unit = {sql_text(visit.unit)}"
    )
    rows = run.records(where)
    low = float(rows["low"].iloc[0]) if len(rows) else math.nan
    if not low > 0.5:
        value = float(auroc(scores[None], held_out.y)[0])
        raise BadInput(
            f"no monitor can be made: {site} does not read {held_out.concept} at {visit.stage} {visit.checkpoint} (held-out AUROC "
            f"{value:.2f}, its interval begins at {low:.2f}, not above .5): choose another `site`, `stage` or `step`."
        )


def _false_alarms(scores: Float[Tensor, " example"], held_out: HeldOut, threshold: float) -> CalibratedRate:
    """Share of the negatives above the threshold, with the 95 % interval of the rate on new ones.

    The rate above the (k + 1)-th largest of n scores has a beta distribution with k + 1 and n − k, whatever the scores' distribution
    (Wilks 1941). Negatives of one group count as one.
    """
    negatives = scores[~held_out.y]
    n, k = len(negatives), int((negatives > threshold).sum())
    share = len(held_out.groups[~held_out.y].unique()) / n
    low, high = (float(beta.ppf(tail, (k + 1) * share, (n - k) * share)) for tail in (0.025, 0.975))
    return CalibratedRate(k / n, low, high, n)


def _caught(scores: Float[Tensor, " example"], held_out: HeldOut, threshold: float, rate: float) -> CalibratedRate:
    """Share of the positives above the threshold; the interval resamples groups and chooses the threshold anew.

    Args:
        rate: Share of the held-out negatives above the threshold.
    """
    value = (scores[held_out.y] > threshold).float().mean()[None]
    samples = bootstrap_tpr(scores[None], held_out.y, held_out.weights, rate)
    interval = bootstrap.share_interval(value, samples, groups=len(held_out.groups.unique()))
    return CalibratedRate(float(value[0]), float(interval.low[0]), float(interval.high[0]), int(held_out.y.sum()))


def _template(checkpoint: Checkpoint, template: Template) -> tuple[str | None, bool]:
    """The text of the template in which the checkpoint was read, and whether the tokenizer adds its special tokens to it."""
    if not template:
        return None, True
    place = nearest_tokenizer(fetch_checkpoint(checkpoint))
    if place is None:
        raise BadInput(f"no tokenizer in {checkpoint.source} or its parents, which the template needs: restore it.")
    tokenizer = open_tokenizer(place)
    own = template_of(tokenizer, template)
    return template_text(tokenizer, own) or None, adds_special_tokens(tokenizer, own)


def _module(checkpoint: Checkpoint, layer: int) -> str:
    network = empty_network(checkpoint_config(checkpoint) or {})
    if network is None:
        raise BadInput(f"{checkpoint.source} has no config.json that transformers knows: restore it.")
    return f"{architectures.architecture_of(network).blocks}.{max(0, layer - 1)}"


def _text(rate: CalibratedRate) -> str:
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"
