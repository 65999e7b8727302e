"""Rows of a transfer: what a probe of one checkpoint reads at another, and what its vector changes there, beside the nulls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.jobs.transfer.measure import DirectionVector, EffectMeter
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
    tried: Sequence[TransferSource],
    own: TransferSource,
) -> tuple[list[Record], dict[str, Tensor]]:
    """AUROC of each source's probes on the held-out examples as the target sees them, and cosines with the target's own.

    Centring each model by its own mean moves all scores of a target alike, so no AUROC depends on it.
    """
    made, raw = [], {}
    for method in TRANSFER_PROBES:
        w = torch.stack([source.probes[method] for source in tried])
        scores = (w.double() @ x[design.split.test].double().T)[..., None]
        raw[method] = scores[..., 0].float()
        scored = held_out_scores("auroc", scores.float(), design.y_test, design.weights, design.test_groups)
        cosines = cosine(w, own.probes[method].expand_as(w))
        for i, source in enumerate(tried):
            columns: dict[str, Any] = {"coords": source.told, "method": method, "reason": NO_SOURCE_DIRECTION}
            ends = scored.interval[i].ends
            made.append(about.row("transfer_auroc", float(scored.value[i]), site, interval=ends, **columns))
            made.append(about.row("transfer_cosine", float(cosines[i]), site, **columns))
    return made, raw


@dataclass(frozen=True, eq=False)
class NullEffects:
    """What vectors that know nothing change, each as long as those that are compared with them."""

    random: Float[Tensor, " control"]
    shuffled: Float[Tensor, " shuffle"]


def vector_length(source: TransferSource, own: TransferSource, options: TransferSettings) -> float:
    """How long a vector is made before it is added."""
    return options.alpha * (own.std if options.length == "target" else source.std)


def measure_nulls(
    bench: EffectMeter, length: float, shuffled: Sequence[DirectionVector], options: TransferSettings
) -> NullEffects:
    """Random directions, and directions fitted on shuffled labels, of one length."""
    start = bench.edits(torch.nn.functional.one_hot(torch.tensor(0), len(shuffled[0])).float() * abs(length))
    edits = control_edits(start, range(options.controls))
    random = [bench.tried(one[0].what.shift).change.mean() for one in edits]  # type: ignore[attr-defined]
    other = [bench.tried(vector * abs(length)).change.mean() for vector in shuffled]
    return NullEffects(torch.stack(random), torch.stack(other))


def null_p_values(change: Float[Tensor, " unit"], found: NullEffects) -> dict[str, float]:
    """Of an effect against the random directions, and against those of shuffled labels."""
    value = float(change.mean())
    return {"": null_p_value(value, found.random), SHUFFLED_LABEL: null_p_value(value, found.shuffled)}


def shuffled_label_directions(x: Float[Tensor, "example d"], design: Design, n: int) -> list[DirectionVector]:
    """Unit mass-mean directions of the training examples under shuffled labels, each of which holds both classes alike.

    Plain permutations would not be without the concept: where it dominates what varies, they point along it, this way or that.
    """
    train, y = x[design.split.train].double(), design.y_train
    found = []
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.zeros_like(y)
        for members in (y.nonzero()[:, 0], (~y).nonzero()[:, 0]):
            order = members[torch.randperm(len(members), generator=generator)]
            drawn[order[: len(order) // 2]] = True
        difference = train[drawn].mean(0) - train[~drawn].mean(0)
        found.append((difference / difference.norm()).float())
    return found


@dataclass(frozen=True, eq=False)
class TargetEffects:
    """What all vectors changed in one target."""

    records: list[Record]
    effects: Float[Tensor, "source unit"]
    """NaN where a vector could not be tried."""
    p: Float[Tensor, " source"]
    """Against the random directions; NaN likewise."""


def transfer_effect_rows(
    about: RowContext,
    bench: EffectMeter,
    site: Site,
    tried: Sequence[TransferSource],
    own: TransferSource,
    options: TransferSettings,
    shuffled: Sequence[DirectionVector],
) -> TargetEffects:
    """Effect with interval, p against the nulls, cost on neutral text, and the gain over the target's own vector."""
    groups = bench.outcome.groups
    weights = bootstrap.group_weights(groups, samples=1000, seed=about.seed)
    known: dict[float, NullEffects] = {}
    effects = torch.full((len(tried), len(groups)), torch.nan, dtype=torch.float64)
    p = torch.full((len(tried),), torch.nan, dtype=torch.float64)
    made: list[Record] = []
    own_change = _vector_effect(bench, own, own, options)
    for i, source in enumerate(tried):
        told = {"outcome": bench.outcome.kind, "length": options.length, **source.told}
        length = round(vector_length(source, own, options), 9)
        change = _vector_effect(bench, source, own, options)
        if isinstance(change, str):
            made.append(_row(about, site, "transfer_effect", told, note=change))
            continue
        if length not in known:
            known[length] = measure_nulls(bench, length, shuffled, options)
            made += _null_rows(about, site, known[length], told, options)
        effects[i], alpha = change
        told |= {"alpha": f"{alpha * options.alpha:.4g}"}
        against = null_p_values(effects[i], known[length])
        p[i] = against[""]
        made.append(mean_row(about, site, "transfer_effect", effects[i], groups, weights, told))
        made += [
            _row(about, site, "transfer_p", told, against[name], n=n, control=name or None)
            for name, n in (("", options.controls), (SHUFFLED_LABEL, options.shuffles))
        ]
        cost = bench.cost(alpha * length * source.unit)
        spread = bootstrap.group_weights(torch.arange(len(cost)), samples=1000, seed=about.seed)
        made.append(mean_row(about, site, "transfer_cost", cost, torch.arange(len(cost)), spread, told))
        if not isinstance(own_change, str) and source is not own:
            made.append(mean_row(about, site, "transfer_gain", effects[i] - own_change[0], groups, weights, told))
    return TargetEffects(made, effects, p)


def unmeasured_row(about: RowContext, site: Site, metric: str, why: str) -> Record:
    """A row that says why there is no number."""
    return _row(about, site, metric, {}, note=why)


def _vector_effect(
    bench: EffectMeter, source: TransferSource, own: TransferSource, options: TransferSettings
) -> tuple[Tensor, float] | str:
    if not source.known:
        return NO_SOURCE_DIRECTION
    length = vector_length(source, own, options)
    if math.isnan(length) or length == 0:
        return "no length: the projections at the target do not vary"
    try:
        one = bench.tried(source.unit * length)
    except BadInput as error:
        return str(error)
    return one.change, one.alpha


def _null_rows(
    about: RowContext, site: Site, found: NullEffects, told: Mapping[str, str], options: TransferSettings
) -> list[Record]:
    # With the target's length one set of nulls serves all sources; else each length has its own.
    kept = told if options.length == "source" else {k: told[k] for k in ("outcome", "length")}
    nulls = (("random_direction", found.random), (SHUFFLED_LABEL, found.shuffled))
    return [null_row(about, site, "transfer_effect", control, draws, kept) for control, draws in nulls]


def null_row(
    about: RowContext, site: Site, metric: str, control: str, draws: Float[Tensor, " control"], told: Mapping[str, str]
) -> Record:
    """Mean of a null distribution; the interval is its 2.5 and 97.5 % quantiles."""
    ends = null_interval(draws.double())
    mean, n, reason = float(draws.mean()), len(draws), "degenerate scores"
    return _row(about, site, metric, told, mean, interval=ends, n=n, control=control, reason=reason)


def mean_row(
    about: RowContext,
    site: Site,
    metric: str,
    values: Float[Tensor, " unit"],
    groups: Int[Tensor, " unit"],
    weights: Float[Tensor, "sample unit"],
    told: Mapping[str, str],
) -> Record:
    """Mean over questions or texts, with an interval by group."""
    value = values.mean()
    ends = bootstrap.percentile_interval(
        value, bootstrap.mean_samples(values[None], weights)[:, 0], groups=len(groups.unique())
    )
    return _row(about, site, metric, told, float(value), interval=ends.ends, n=len(values))


def _row(
    about: RowContext,
    site: Site,
    metric: str,
    told: Mapping[str, str],
    value: float = math.nan,
    *,
    n: int = 0,
    **columns: Any,
) -> Record:
    return about.row(metric, value, site, n=n, method="mass_mean", coords=told, **columns)
