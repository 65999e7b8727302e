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


def cross_auroc_rows(
    design: Design,
    about: RowContext,
    x: Float[Tensor, "example d"],
    site: Site,
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
            columns: dict[str, Any] = {"coords": source.row_coords, "method": method, "reason": NO_SOURCE_DIRECTION}
            ends = scored.interval[i].ends
            rows.append(about.row("transfer_auroc", float(scored.value[i]), site, interval=ends, **columns))
            rows.append(about.row("transfer_cosine", float(cosines[i]), site, **columns))
    return rows, raw


@dataclass(frozen=True, eq=False)
class NullEffects:
    """Effects of norm-matched null vectors."""

    random: Float[Tensor, " control"]
    permuted_labels: Float[Tensor, " shuffle"]


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
    about: RowContext,
    meter: EffectMeter,
    site: Site,
    sources: Sequence[TransferSource],
    own: TransferSource,
    settings: TransferSettings,
    shuffled: Sequence[DirectionVector],
) -> TargetEffects:
    """Effect with interval, p against the nulls, cost on neutral text, and gain over the target's own vector."""
    groups = meter.outcome.groups
    weights = bootstrap.group_weights(groups, samples=1000, seed=about.seed)
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
            rows.append(_row(about, site, "transfer_effect", coords, note=effect))
            continue
        if length not in nulls:
            nulls[length] = measure_nulls(meter, length, shuffled, settings)
            rows += _null_rows(about, site, nulls[length], coords, settings)
        effects[i], alpha = effect.effect, effect.alpha
        coords |= {"alpha": f"{alpha * settings.alpha:.4g}"}
        p_values = null_p_values(effects[i], nulls[length])
        p[i] = p_values[""]
        rows.append(mean_row(about, site, "transfer_effect", effects[i], groups, weights, coords))
        rows += [
            _row(about, site, "transfer_p", coords, p_values[name], n=n, control=name or None)
            for name, n in (("", settings.controls), (SHUFFLED_LABEL, settings.shuffles))
        ]
        cost = meter.cost(alpha * length * source.unit_direction)
        texts = torch.arange(len(cost))
        spread = bootstrap.group_weights(texts, samples=1000, seed=about.seed)
        rows.append(mean_row(about, site, "transfer_cost", cost, texts, spread, coords))
        if not isinstance(own_effect, str) and source is not own:
            gain = effects[i] - own_effect.effect
            rows.append(mean_row(about, site, "transfer_gain", gain, groups, weights, coords))
    return TargetEffects(rows, effects, p)


def unmeasured_row(about: RowContext, site: Site, metric: str, reason: str) -> Record:
    """A row without a value."""
    return _row(about, site, metric, {}, note=reason)


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
    try:
        return meter.measure(source.unit_direction * length)
    except BadInput as error:
        return str(error)


def _null_rows(
    about: RowContext, site: Site, nulls: NullEffects, coords: Mapping[str, str], settings: TransferSettings
) -> list[Record]:
    # With the target's length one set of nulls serves all sources; otherwise each length has its own.
    kept = coords if settings.length == "source" else {k: coords[k] for k in ("outcome", "length")}
    draws = (("random_direction", nulls.random), (SHUFFLED_LABEL, nulls.permuted_labels))
    return [null_row(about, site, "transfer_effect", control, values, kept) for control, values in draws]


def null_row(
    about: RowContext, site: Site, metric: str, control: str, draws: Float[Tensor, " draw"], coords: Mapping[str, str]
) -> Record:
    """Mean of a null distribution; the interval is its 2.5 and 97.5 % quantiles."""
    ends, reason = null_interval(draws.double()), "degenerate scores"
    return _row(
        about, site, metric, coords, float(draws.mean()), interval=ends, n=len(draws), control=control, reason=reason
    )


def mean_row(
    about: RowContext,
    site: Site,
    metric: str,
    values: Float[Tensor, " unit"],
    groups: Int[Tensor, " unit"],
    weights: Float[Tensor, "sample unit"],
    coords: Mapping[str, str],
) -> Record:
    """Mean over questions or texts, with an interval by group."""
    value, n = values.mean(), len(groups.unique())
    ends = bootstrap.percentile_interval(value, bootstrap.mean_samples(values[None], weights)[:, 0], groups=n)
    return _row(about, site, metric, coords, float(value), interval=ends.ends, n=len(values))


def _row(
    about: RowContext,
    site: Site,
    metric: str,
    coords: Mapping[str, str],
    value: float = math.nan,
    *,
    n: int = 0,
    **columns: Any,
) -> Record:
    return about.row(metric, value, site, n=n, method="mass_mean", coords=coords, **columns)
