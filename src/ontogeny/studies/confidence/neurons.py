"""The last MLP of one stage: norm and logit variance of its neurons, its candidates, and what each of these does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.compare.rows import StageRowBuilder
from ontogeny.models.model import Model
from ontogeny.neurons.entropy_neurons import (
    NeuronStatistics,
    entropy_neuron_candidates,
    neuron_output_vectors,
    neuron_statistics,
)
from ontogeny.neurons.mean_ablation import EntropyEffect, EntropyEffects, mean_ablate
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.studies.confidence.measure import BootstrapEstimate
from ontogeny.studies.confidence.settings import ConfidenceSettings


@dataclass(frozen=True, eq=False)
class EntropyNeuronLayer:
    """What a comparison keeps of a stage's last MLP."""

    found: NeuronStatistics
    rows: Float[Tensor, "neuron d"]
    candidates: dict[str, list[int]]
    """By criterion, the clearest first."""

    @property
    def ratio(self) -> Float[Tensor, " neuron"]:
        """Norm over the logarithm of the logit variance, the number that the paper compares."""
        return self.found.norm / self.found.variance.clamp(min=1e-30).log()


def find_entropy_neurons(model: Model, settings: ConfidenceSettings) -> EntropyNeuronLayer:
    found = neuron_statistics(model, processing=settings.processing)
    picked = {
        "variance": entropy_neuron_candidates(found, by="variance", top=settings.top, count=settings.count),
        "null": entropy_neuron_candidates(found, by="null", count=settings.count),
    }
    return EntropyNeuronLayer(found, neuron_output_vectors(model).cpu(), picked)


def entropy_neuron_rows(
    table: StageRowBuilder,
    stage: str,
    model: Model,
    texts: Sequence[str],
    layer: EntropyNeuronLayer,
    settings: ConfidenceSettings,
) -> Iterator[Record]:
    """Candidates and a sample of the others, by weights; then the causal test of the candidates."""
    found, site = layer.found, Site("neuron", layer.found.layer)
    drawn = torch.randperm(len(found.norm), generator=torch.Generator().manual_seed(settings.seed))[: settings.scatter]
    shown = sorted({*drawn.tolist(), *(n for picked in layer.candidates.values() for n in picked)})
    for neuron in shown:
        by = "+".join(name for name, picked in layer.candidates.items() if neuron in picked)
        coords = {"neuron": str(neuron), "candidate": by}
        for metric, values in (
            ("neuron_norm", found.norm),
            ("logit_variance", found.variance),
            ("null_share", found.null_share),
        ):
            value = float(values[neuron])
            # The criterion reads weights alone: what it was measured on is the neuron.
            yield table.row(metric, value, stage, site=site, n=1, coords=coords)
    if settings.tested:
        tried = mean_ablate(
            model,
            list(texts)[: settings.tested],
            top=settings.top,
            count=settings.count,
            each=settings.each,
            tokens=settings.tokens,
            processing=settings.processing,
            seed=settings.seed,
        )
        yield from _candidate_effect_rows(table, stage, site, tried, settings)


def _candidate_effect_rows(
    table: StageRowBuilder, stage: str, site: Site, tried: EntropyEffects, settings: ConfidenceSettings
) -> Iterator[Record]:
    texts = len(tried.candidates[0].total)
    weights = group_weights(torch.arange(texts), samples=settings.samples, seed=settings.seed).double()
    for effect in tried.candidates:
        coords = {"neuron": str(effect.neuron), "confirmed": str(effect.neuron in tried.confirmed).lower()}
        for form, values in (("total", effect.total), ("frozen", effect.frozen), ("signed", effect.signed)):
            number = BootstrapEstimate(float(values.mean()), weights @ values / weights.sum(1), texts, texts)
            yield table.row(
                "entropy_effect",
                number.value,
                stage,
                site=site,
                ends=number.ends,
                n=texts,
                coords={**coords, "form": form},
            )
        yield table.row(
            "indirect_share",
            effect.indirect,
            stage,
            site=site,
            n=texts,
            coords=coords,
            reason="the neuron has no effect on the entropy",
        )
    yield from _norm_matched_rows(table, stage, site, tried.others, texts)
    yield table.row(
        "entropy_neurons",
        float(len(tried.confirmed)),
        stage,
        site=site,
        n=len(tried.candidates),
        coords={"neurons": " ".join(map(str, tried.confirmed)), "least": f"{tried.least:.4g}"},
    )


def _norm_matched_rows(
    table: StageRowBuilder, stage: str, site: Site, others: Sequence[EntropyEffect], texts: int
) -> Iterator[Record]:
    """Neurons of the same norm: their mean, and the 2.5 and 97.5 % quantiles over neurons as its ends."""
    if not others:
        return
    forms = {
        "total": [float(e.total.mean()) for e in others],
        "frozen": [float(e.frozen.mean()) for e in others],
        "signed": [float(e.signed.mean()) for e in others],
    }
    for form, values in forms.items():
        of = torch.tensor(values, dtype=torch.float64)
        yield table.row(
            "entropy_effect",
            float(of.mean()),
            stage,
            site=site,
            ends=(float(of.quantile(0.025)), float(of.quantile(0.975))),
            n=texts,
            control="random_neurons",
            note=f"{len(others)} neurons of the same norm",
            coords={"form": form},
        )
