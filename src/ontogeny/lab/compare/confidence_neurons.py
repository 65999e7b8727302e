"""The last MLP of one stage: norm and logit variance of its neurons, its candidates, and what each of these does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.lab.compare.cells import Table
from ontogeny.lab.compare.confidence_measured import Number
from ontogeny.lab.compare.confidence_settings import ConfidenceSettings
from ontogeny.lab.entropy_neurons import Neurons, candidates, neurons, rows_written
from ontogeny.lab.entropy_neurons_effect import EntropyEffect, Examined, examine
from ontogeny.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights


@dataclass(frozen=True, eq=False)
class Layer:
    """What a comparison keeps of a stage's last MLP."""

    found: Neurons
    rows: Float[Tensor, "neuron d"]
    candidates: dict[str, list[int]]
    """By criterion, the clearest first."""

    @property
    def ratio(self) -> Float[Tensor, " neuron"]:
        """Norm over the logarithm of the logit variance, the number that the paper compares."""
        return self.found.norm / self.found.variance.clamp(min=1e-30).log()


def layer_of(model: Model, settings: ConfidenceSettings) -> Layer:
    found = neurons(model, processing=settings.processing)
    picked = {
        "variance": candidates(found, by="variance", top=settings.top, count=settings.count),
        "null": candidates(found, by="null", count=settings.count),
    }
    return Layer(found, rows_written(model).cpu(), picked)


def neuron_rows(
    table: Table, stage: str, model: Model, texts: Sequence[str], layer: Layer, settings: ConfidenceSettings
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
        tried = examine(
            model,
            list(texts)[: settings.tested],
            top=settings.top,
            count=settings.count,
            each=settings.each,
            tokens=settings.tokens,
            processing=settings.processing,
            seed=settings.seed,
        )
        yield from _effects(table, stage, site, tried, settings)


def _effects(table: Table, stage: str, site: Site, tried: Examined, settings: ConfidenceSettings) -> Iterator[Record]:
    texts = len(tried.candidates[0].total)
    weights = group_weights(torch.arange(texts), samples=settings.samples, seed=settings.seed).double()
    for effect in tried.candidates:
        coords = {"neuron": str(effect.neuron), "confirmed": str(effect.neuron in tried.confirmed).lower()}
        for form, values in (("total", effect.total), ("frozen", effect.frozen), ("signed", effect.signed)):
            number = Number(float(values.mean()), weights @ values / weights.sum(1), texts, texts)
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
    yield from _controls(table, stage, site, tried.others, texts)
    yield table.row(
        "entropy_neurons",
        float(len(tried.confirmed)),
        stage,
        site=site,
        n=len(tried.candidates),
        coords={"neurons": " ".join(map(str, tried.confirmed)), "least": f"{tried.least:.4g}"},
    )


def _controls(table: Table, stage: str, site: Site, others: Sequence[EntropyEffect], texts: int) -> Iterator[Record]:
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
