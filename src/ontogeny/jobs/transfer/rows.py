"""Rows of a transfer: AUROC and cosine of probes, and effects of vectors beside their nulls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.jobs.transfer.measure import DirectionVector, EffectMeter, VectorEffect
from ontogeny.jobs.transfer.plan import TRANSFER_PROBES, TransferSettings
from ontogeny.jobs.transfer.sources import TransferSource
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext
from ontogeny.measurements.scores import held_out_scores
from ontogeny.metrics.similarity import cosine
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.statistics.nulls import null_interval, null_p_value
from ontogeny.steering.steer import control_edits

SHUFFLED_LABEL = "shuffled_label"
NO_SOURCE_DIRECTION = "no direction: the class means coincide at the source"


@dataclass(frozen=True)
class SiteRows:
    """Builds the rows of one concept at one site."""

    about: RowContext
    site: Site

    @classmethod
    def of(cls, design: Design, site: Site, seed: int) -> "SiteRows":
        return cls(design.row_context(seed), site)

    def row(
        self, metric: str, value: float, coords: Mapping[str, str], *, method: str = "mass_mean", **columns: Any
    ) -> Record:
        """One row; further columns as for `RowContext.row`."""
        return self.about.row(metric, value, self.site, method=method, coords=coords, **columns)

    def null(self, metric: str, control: str, draws: Float[Tensor, " draw"], coords: Mapping[str, str]) -> Record:
        """Mean of a null distribution; the interval is its 2.5 and 97.5 % quantiles."""
        columns: dict[str, Any] = {"n": len(draws), "control": control, "reason": "degenerate scores"}
        return self.row(metric, float(draws.mean()), coords, interval=null_interval(draws.double()), **columns)

    def mean(
        self,
        metric: str,
        values: Float[Tensor, " unit"],
        groups: Int[Tensor, " unit"],
        weights: Float[Tensor, "sample unit"],
        coords: Mapping[str, str],
    ) -> Record:
        """Mean over questions or texts, with an interval by group."""
        value, n = values.mean(), len(groups.unique())
        ends = bootstrap.percentile_interval(value, bootstrap.mean_samples(values[None], weights)[:, 0], groups=n)
        return self.row(metric, float(value), coords, interval=ends.ends, n=len(values), reason="degenerate scores")


def cross_auroc_rows(
    build: SiteRows,
    design: Design,
    x: Float[Tensor, "example d"],
    sources: Sequence[TransferSource],
    own: TransferSource,
) -> tuple[list[Record], dict[str, Tensor]]:
    """AUROC of each source's probes on held-out activations of the target, their cosines with the target's own, and their scores.

    Centring each model by its own mean shifts all scores of a target equally, so that no AUROC depends on it.
    """
    rows, raw = [], {}
    for method in TRANSFER_PROBES:
        w = torch.stack([source.probes[method] for source in sources])
        scores = (w.double() @ x[design.split.test].double().T)[..., None]
        raw[method] = scores[..., 0].float()
        scored = held_out_scores("auroc", scores.float(), design.y_test, design.weights, design.test_groups)
        cosines = cosine(w, own.probes[method].expand_as(w))
        for i, source in enumerate(sources):
            columns: dict[str, Any] = {"method": method, "reason": NO_SOURCE_DIRECTION}
            auroc, ends = float(scored.value[i]), scored.interval[i].ends
            rows.append(build.row("transfer_auroc", auroc, source.row_coords, interval=ends, **columns))
            rows.append(build.row("transfer_cosine", float(cosines[i]), source.row_coords, **columns))
    return rows, raw


@dataclass(frozen=True, eq=False)
class NullEffects:
    """Effects of norm-matched null vectors."""

    random: Float[Tensor, " control"]
    permuted_labels: Float[Tensor, " shuffle"]

    @property
    def by_control(self) -> dict[str, Tensor]:
        return {"random_direction": self.random, SHUFFLED_LABEL: self.permuted_labels}


def measure_nulls(
    meter: EffectMeter, length: float, shuffled: Sequence[DirectionVector], settings: TransferSettings
) -> NullEffects:
    """Mean effects of random directions, and of directions fitted on shuffled labels, all of one length."""
    start = meter.edits(torch.nn.functional.one_hot(torch.tensor(0), len(shuffled[0])).float() * abs(length))
    edits = control_edits(start, range(settings.controls))
    random = [meter.measure(one[0].what.shift).effect.mean() for one in edits]  # type: ignore[attr-defined]
    permuted = [meter.measure(vector * abs(length)).effect.mean() for vector in shuffled]
    return NullEffects(torch.stack(random), torch.stack(permuted))


def null_p_values(effect: Float[Tensor, " unit"], nulls: NullEffects) -> dict[str, float]:
    """p of an effect by control: random directions (an empty name), and shuffled labels."""
    value = float(effect.mean())
    return {"": null_p_value(value, nulls.random), SHUFFLED_LABEL: null_p_value(value, nulls.permuted_labels)}


def shuffled_label_directions(x: Float[Tensor, "example d"], design: Design, n: int) -> list[DirectionVector]:
    """Unit mass-mean directions of the training examples under shuffled labels; each shuffled class has equally many of both classes.

    Plain permutations would keep the concept: if it dominates the variance, they point along it with a random sign.
    """
    train, y = x[design.split.train].double(), design.y_train
    directions = []
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.zeros_like(y)
        for members in (y.nonzero()[:, 0], (~y).nonzero()[:, 0]):
            order = members[torch.randperm(len(members), generator=generator)]
            drawn[order[: len(order) // 2]] = True
        difference = train[drawn].mean(0) - train[~drawn].mean(0)
        directions.append((difference / difference.norm()).float())
    return directions


@dataclass(frozen=True, eq=False)
class TargetEffects:
    """Effects of all vectors on one target."""

    records: list[Record]
    effects: Float[Tensor, "source unit"]
    """NaN if a vector could not be tried."""
    p: Float[Tensor, " source"]
    """Against random directions; NaN as for `effects`."""


def transfer_effect_rows(
    build: SiteRows,
    meter: EffectMeter,
    sources: Sequence[TransferSource],
    own: TransferSource,
    settings: TransferSettings,
    shuffled: Sequence[DirectionVector],
) -> TargetEffects:
    """Effect with interval, p against the nulls, cost on neutral text, and gain over the target's own vector."""
    groups, seed = meter.outcome.groups, build.about.seed
    weights = bootstrap.group_weights(groups, samples=1000, seed=seed)
    nulls: dict[float, NullEffects] = {}
    effects = torch.full((len(sources), len(groups)), torch.nan, dtype=torch.float64)
    p = torch.full((len(sources),), torch.nan, dtype=torch.float64)
    rows: list[Record] = []
    own_effect = _vector_effect(meter, own, own, settings)
    for i, source in enumerate(sources):
        coords = {"outcome": meter.outcome.kind, "length": settings.length, **source.row_coords}
        length = round(_vector_length(source, own, settings), 9)
        effect = _vector_effect(meter, source, own, settings)
        if isinstance(effect, str):
            rows.append(build.row("transfer_effect", math.nan, coords, n=0, note=effect))
            continue
        if length not in nulls:
            drawn = nulls_or_reason(meter, length, shuffled, settings)
            if isinstance(drawn, str):
                rows.append(build.row("transfer_effect", math.nan, coords, n=0, note=drawn))
                continue
            nulls[length] = drawn
            # With the target's length one set of nulls serves all sources; otherwise each length has its own.
            kept = coords if settings.length == "source" else {k: coords[k] for k in ("outcome", "length")}
            for control, draws in nulls[length].by_control.items():
                rows.append(build.null("transfer_effect", control, draws, kept))
        effects[i], alpha = effect.effect, effect.alpha
        coords |= {"alpha": f"{alpha * settings.alpha:.4g}"}
        p_values = null_p_values(effects[i], nulls[length])
        p[i] = p_values[""]
        rows.append(build.mean("transfer_effect", effects[i], groups, weights, coords))
        for name, n in (("", settings.controls), (SHUFFLED_LABEL, settings.shuffles)):
            columns: dict[str, Any] = {"n": n, "control": name or None, "reason": "degenerate scores"}
            rows.append(build.row("transfer_p", p_values[name], coords, **columns))
        cost = meter.cost(alpha * length * source.unit_direction)
        texts = torch.arange(len(cost))
        spread = bootstrap.group_weights(texts, samples=1000, seed=seed)
        rows.append(build.mean("transfer_cost", cost, texts, spread, coords))
        if not isinstance(own_effect, str) and source is not own:
            rows.append(build.mean("transfer_gain", effects[i] - own_effect.effect, groups, weights, coords))
    return TargetEffects(rows, effects, p)


def _vector_length(source: TransferSource, own: TransferSource, settings: TransferSettings) -> float:
    return settings.alpha * (own.std if settings.length == "target" else source.std)


def _vector_effect(
    meter: EffectMeter, source: TransferSource, own: TransferSource, settings: TransferSettings
) -> VectorEffect | str:
    """The effect of a source's vector, or the reason why it has none."""
    if not source.has_direction:
        return NO_SOURCE_DIRECTION
    length = _vector_length(source, own, settings)
    if math.isnan(length) or length == 0:
        return "no length: the projections at the target do not vary"
    return effect_or_reason(meter, source.unit_direction * length)


def effect_or_reason(meter: EffectMeter, vector: DirectionVector) -> VectorEffect | str:
    """The effect of a vector, or the reason why it has none, such as a cost that it cannot reach."""
    try:
        return meter.measure(vector)
    except BadInput as error:
        return _reason(error)


def nulls_or_reason(
    meter: EffectMeter, length: float, shuffled: Sequence[DirectionVector], settings: TransferSettings
) -> NullEffects | str:
    """Effects of the null vectors, or the reason why one of them has none."""
    try:
        return measure_nulls(meter, length, shuffled, settings)
    except BadInput as error:
        return f"a control has no effect to compare with: {_reason(error)}"


def _reason(error: BadInput) -> str:
    """The message as a part of a sentence."""
    return str(error).removesuffix(".")
