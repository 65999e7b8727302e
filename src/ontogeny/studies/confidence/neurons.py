"""Entropy neurons of one stage: norms and logit variances of its last MLP, the candidates, and the effect of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.models.model import Model
from ontogeny.neurons.entropy_neurons import (
    NeuronStatistics,
    entropy_neuron_candidates,
    neuron_output_vectors,
    neuron_statistics,
)
from ontogeny.neurons.mean_ablation import EntropyEffects, mean_ablate
from ontogeny.records import Record, StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import bootstrap_mean, group_weights
from ontogeny.statistics.nulls import null_interval
from ontogeny.studies.confidence.settings import ConfidenceSettings

_FORMS = ("total", "frozen", "signed")


@dataclass(frozen=True, eq=False)
class EntropyNeuronLayer:
    """Neurons of a stage's last MLP."""

    statistics: NeuronStatistics
    rows: Float[Tensor, "neuron d"]
    candidates: dict[str, list[int]]
    """Candidate neurons by criterion, the clearest first."""

    @property
    def site(self) -> Site:
        return Site("neuron", self.statistics.layer)

    @property
    def ratio(self) -> Float[Tensor, " neuron"]:
        """Norm over the logarithm of the logit variance, which the paper compares between stages."""
        return self.statistics.norm / self.statistics.variance.clamp(min=1e-30).log()


def find_entropy_neurons(model: Model, settings: ConfidenceSettings) -> EntropyNeuronLayer:
    """Candidates by logit variance and by null space."""
    statistics = neuron_statistics(model, processing=settings.processing)
    candidates = {
        "variance": entropy_neuron_candidates(statistics, by="variance", top=settings.top, count=settings.count),
        "null": entropy_neuron_candidates(statistics, by="null", count=settings.count),
    }
    return EntropyNeuronLayer(statistics, neuron_output_vectors(model).cpu(), candidates)


def entropy_neuron_rows(
    table: StageRowBuilder,
    stage: str,
    model: Model,
    texts: Sequence[str],
    layer: EntropyNeuronLayer,
    settings: ConfidenceSettings,
) -> Iterator[Record]:
    """Weight statistics of the candidates and a random sample, then the causal test of the candidates."""
    table, statistics = replace(table, site=layer.site), layer.statistics
    order = torch.randperm(len(statistics.norm), generator=torch.Generator().manual_seed(settings.seed))
    candidates = {n for chosen in layer.candidates.values() for n in chosen}
    for neuron in sorted({*order[: settings.scatter].tolist(), *candidates}):
        by = "+".join(name for name, chosen in layer.candidates.items() if neuron in chosen)
        for metric, values in (
            ("neuron_norm", statistics.norm),
            ("logit_variance", statistics.variance),
            ("null_share", statistics.null_share),
        ):
            # The criteria read weights only, so n counts the neuron.
            yield table.row(metric, float(values[neuron]), stage, n=1, neuron=neuron, candidate=by)
    if settings.tested:
        effects = mean_ablate(
            model,
            list(texts)[: settings.tested],
            top=settings.top,
            count=settings.count,
            each=settings.each,
            tokens=settings.tokens,
            processing=settings.processing,
            seed=settings.seed,
        )
        yield from _effect_rows(table, stage, effects, settings)


def _effect_rows(
    table: StageRowBuilder, stage: str, effects: EntropyEffects, settings: ConfidenceSettings
) -> Iterator[Record]:
    """Effects of the candidates on the entropy, and of norm-matched neurons as their null distribution."""
    texts = len(effects.candidates[0].total)
    weights = group_weights(torch.arange(texts), samples=settings.samples, seed=settings.seed)
    for effect in effects.candidates:
        coords: dict[str, Any] = {"neuron": effect.neuron, "confirmed": effect.neuron in effects.confirmed}
        for form in _FORMS:
            number = bootstrap_mean(getattr(effect, form), weights, texts)
            yield table.row("entropy_effect", number.value, stage, ends=number.ends, n=texts, form=form, **coords)
        reason = "the neuron has no effect on the entropy"
        yield table.row("indirect_share", effect.indirect, stage, n=texts, reason=reason, **coords)
    for form in _FORMS if effects.others else ():
        means = torch.tensor([float(getattr(e, form).mean()) for e in effects.others], dtype=torch.float64)
        yield table.row(
            "entropy_effect",
            float(means.mean()),
            stage,
            ends=null_interval(means),
            n=texts,
            control="random_neurons",
            note=f"{len(means)} neurons of the same norm",
            form=form,
        )
    confirmed = effects.confirmed
    coords = {"neurons": " ".join(map(str, confirmed)), "least": f"{effects.least:.4g}"}
    yield table.row("entropy_neurons", float(len(confirmed)), stage, n=len(effects.candidates), **coords)
