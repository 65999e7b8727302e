"""Two stages' confidence: the difference, whether the same neurons are candidates, and what comes along with their rows."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.jobs.compare.rows import StageRowBuilder
from ontogeny.metrics.calibration import expected_calibration_error
from ontogeny.models.model import Model, output_weight
from ontogeny.neurons.entropy_neurons import matched_share, neuron_overlap, norm_matched_neurons
from ontogeny.neurons.last_layer_cache import (
    LastLayerCache,
    apply_final_norm,
    cache_last_layer,
    next_token_entropies,
    target_log_likelihoods,
)
from ontogeny.neurons.mean_ablation import first_tokens
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import tokenize_answers
from ontogeny.studies.confidence.measure import (
    BootstrapEstimate,
    CalibrationQuestion,
    OptionProbabilities,
    StageConfidence,
    measure_stage_confidence,
)
from ontogeny.studies.confidence.neurons import EntropyNeuronLayer
from ontogeny.studies.confidence.settings import ConfidenceSettings

_MIN_MATCHED_SHARE = 0.5
"""Share of the neurons that must find themselves in the other stage before sets of their numbers mean anything."""
_SWAP_METRICS = ("entropy", "ece")


def confidence_gap_rows(
    table: StageRowBuilder, stage: str, other: str, sure: Mapping[str, StageConfidence]
) -> Iterator[Record]:
    """The stage less the other one, on the same texts and questions."""
    for name, number in sure[stage].numbers.items():
        gap = number - sure[other].numbers[name]
        yield table.row("confidence_gap", gap.value, stage, other, ends=gap.ends, n=gap.n, coords={"of": name})


def neuron_correspondence(stage: str, other: str, layers: Mapping[str, EntropyNeuronLayer]) -> tuple[float, str]:
    """How many neurons find themselves in the other stage, and why the two cannot be compared, if so."""
    mine, theirs = layers[stage], layers[other]
    if mine.rows.shape != theirs.rows.shape:
        shapes = [
            f"{name} {len(one.rows)} neurons of width {one.rows.shape[1]}"
            for name, one in ((stage, mine), (other, theirs))
        ]
        return math.nan, f"the last MLPs differ: {', '.join(shapes)}"
    share = matched_share(mine.rows, theirs.rows)
    if share < _MIN_MATCHED_SHARE:
        return (
            share,
            f"only {share:.0%} of the neurons find themselves in {other}: no common ancestry, so numbers mean nothing",
        )
    return share, ""


def neuron_overlap_rows(
    table: StageRowBuilder,
    stage: str,
    other: str,
    layers: Mapping[str, EntropyNeuronLayer],
    settings: ConfidenceSettings,
) -> Iterator[Record]:
    """Whether the neurons are the same, whether the same are candidates, and how their ratios agree."""
    share, why = neuron_correspondence(stage, other, layers)
    mine, theirs = layers[stage], layers[other]
    site, n = Site("neuron", mine.found.layer), len(mine.rows)
    yield table.row("neuron_match", share, stage, other, site=site, n=min(n, 512), reason=why)
    for by in mine.candidates:
        coords = {"by": by}
        if why:
            yield table.row("neuron_overlap", math.nan, stage, other, site=site, n=0, coords=coords, reason=why)
            continue
        found = neuron_overlap(mine.candidates[by], theirs.candidates[by], among=n)
        told = {**coords, "shared": str(found.shared), "p": f"{found.p:.3g}"}
        yield table.row("neuron_overlap", found.iou, stage, other, site=site, n=settings.count, coords=told)
        yield table.row(
            "neuron_overlap",
            found.chance,
            stage,
            other,
            site=site,
            ends=(0.0, found.chance_high),
            n=settings.count,
            control="random_set",
            coords=coords,
        )
    value = math.nan if why else float(torch.corrcoef(torch.stack([mine.ratio, theirs.ratio]))[0, 1])
    yield table.row(
        "neuron_ratio_correlation", value, stage, other, site=site, n=n, reason=why or "ratios are all alike"
    )


def donor_stages(stage: str, order: Sequence[str], crossed: int) -> list[str]:
    """The stages whose rows are put into this one."""
    if len(order) <= crossed:
        return [name for name in order if name != stage]
    mine = order.index(stage)
    near = {0, mine - 1, mine + 1} if mine else set(range(1, len(order)))
    return [order[i] for i in sorted(near) if 0 <= i < len(order) and i != mine]


def neuron_swap_rows(
    table: StageRowBuilder,
    stage: str,
    model: Model,
    texts: Sequence[str],
    questions: Sequence[CalibrationQuestion],
    sure: Mapping[str, StageConfidence],
    layers: Mapping[str, EntropyNeuronLayer],
    settings: ConfidenceSettings,
) -> Iterator[Record]:
    """The rows of every other stage's candidates put into this one, and as many rows of other neurons of the same norm."""
    site, plain = Site("neuron", layers[stage].found.layer), sure[stage].numbers
    draws: dict[str, list[list[int]]] = {}
    for donor in donor_stages(stage, list(layers), settings.crossed):
        _, why = neuron_correspondence(stage, donor, layers)
        if why:
            for of in _SWAP_METRICS:
                yield table.row("swap_effect", math.nan, stage, donor, site=site, n=0, coords={"of": of}, reason=why)
            continue
        chosen, found = layers[donor].candidates["variance"], layers[donor].found
        draws[donor] = [
            norm_matched_neurons(found, chosen, seed=settings.seed + draw) for draw in range(settings.swaps)
        ]
    if not draws:
        return
    every = {neuron for sets in draws.values() for drawn in sets for neuron in drawn}
    end = cache_stage(model, texts, questions, sorted(every), tokens=settings.tokens)
    for donor, sets in draws.items():
        chosen = layers[donor].candidates["variance"]
        with swap_neuron_weights(model, layers[donor].rows, chosen):
            after = measure_stage_confidence(model, texts, questions, settings).numbers
        nulls = _random_swap_estimates(end, layers[donor], sets, settings)
        for of in _SWAP_METRICS:
            change = after[of] - plain[of]
            coords = {"of": of, "neurons": str(len(chosen))}
            yield table.row(
                "swap_effect", change.value, stage, donor, site=site, ends=change.ends, n=change.n, coords=coords
            )
            drawn = nulls[of] - plain[of].value
            yield table.row(
                "swap_effect",
                float(drawn.mean()),
                stage,
                donor,
                site=site,
                ends=(float(drawn.quantile(0.025)), float(drawn.quantile(0.975))),
                n=change.n,
                control="random_neurons",
                note=f"{len(drawn)} sets of as many neurons of the same norm",
                coords=coords,
            )
            yield _explained_share_row(table, stage, donor, site, change, sure[donor].numbers[of] - plain[of], of)


def _random_swap_estimates(
    of: StageCache, layer: EntropyNeuronLayer, draws: Sequence[Sequence[int]], settings: ConfidenceSettings
) -> dict[str, Float[Tensor, " draw"]]:
    """Entropy and ECE under the donor's rows of each random set."""
    found = [of.under(layer.rows, drawn) for drawn in draws]
    return {
        "entropy": torch.stack([entropy.mean() for entropy, _ in found]),
        "ece": torch.cat(
            [expected_calibration_error(said.confidence, said.hit, bins=settings.bins) for _, said in found]
        ),
    }


def _explained_share_row(
    table: StageRowBuilder,
    stage: str,
    donor: str,
    site: Site,
    change: BootstrapEstimate,
    gap: BootstrapEstimate,
    of: str,
) -> Record:
    """What part of the difference between the stages the rows bring along."""
    low, high = gap.ends
    if low <= 0 <= high:
        why = f"the stages do not differ for sure ({gap.value:.3f}, {low:.3f} to {high:.3f})"
        return table.row("swap_share", math.nan, stage, donor, site=site, n=0, coords={"of": of}, reason=why)
    share = BootstrapEstimate(change.value / gap.value, change.samples / gap.samples, change.n, change.groups)
    return table.row("swap_share", share.value, stage, donor, site=site, ends=share.ends, n=share.n, coords={"of": of})


@contextlib.contextmanager
@torch.no_grad()
def swap_neuron_weights(model: Model, rows: Float[Tensor, "neuron d"], chosen: Sequence[int]) -> Iterator[None]:
    """While open, the chosen neurons write the given rows; afterwards their own, bit for bit, whatever happened.

    Raises:
        BadInput: rows of another layer's shape, or a neuron that is not there.
    """
    weight = output_weight(model, Site("mlp", model.layers))
    if rows.shape != weight.shape or any(not 0 <= n < len(weight) for n in chosen):
        raise BadInput(
            f"rows of {tuple(rows.shape)} do not fit a last MLP of {tuple(weight.shape)}, or a neuron is not there. "
            "Swap between stages of one architecture."
        )
    at = list(chosen)
    before = weight[at].clone()
    try:
        weight[at] = rows[at].to(weight)
        yield
    finally:
        weight[at] = before


@dataclass(frozen=True, eq=False)
class StageCache:
    """The end of one stage on texts and on answers, for some of its neurons."""

    model: Model
    texts: LastLayerCache
    answers: LastLayerCache
    targets: Int[Tensor, " token"]
    """The token that each kept token of an answer foretells."""
    right: Int[Tensor, " question"]

    @torch.no_grad()
    def under(
        self, rows: Float[Tensor, "neuron d"], chosen: Sequence[int]
    ) -> tuple[Float[Tensor, " text"], OptionProbabilities]:
        """Mean entropy of each text, and beliefs, where the chosen neurons write the given rows: as `swapped` would give them."""
        own = output_weight(self.model, Site("mlp", self.model.layers))
        change = rows[list(chosen)].to(own) - own[list(chosen)]
        sure = next_token_entropies(self.model, self._normed(self.texts, chosen, change))
        likely = self.answers.sum(
            target_log_likelihoods(self.model, self._normed(self.answers, chosen, change), self.targets)
        )
        return self.texts.mean(sure), OptionProbabilities(likely.view(len(self.right), -1).softmax(1), self.right)

    def _normed(
        self, of: LastLayerCache, chosen: Sequence[int], change: Float[Tensor, "chosen d"]
    ) -> Float[Tensor, "token d"]:
        return apply_final_norm(self.model, of, of.of(chosen) @ change)


def cache_stage(
    model: Model, texts: Sequence[str], questions: Sequence[CalibrationQuestion], chosen: Sequence[int], *, tokens: int
) -> StageCache:
    """Run texts and answers once, and keep what the chosen neurons say on them."""
    wanted = sorted(set(chosen))
    given = tokenize_answers(model, [(q.prompt, option) for q in questions for option in q.options])
    # A token is foretold by the one before it; an answer's own last token foretells nothing that is asked.
    before = [a.ids[:-1] for a in given]
    return StageCache(
        model,
        cache_last_layer(model, first_tokens(model, texts, tokens), wanted),
        cache_last_layer(model, before, wanted, starts=[a.prompt - 1 for a in given]),
        torch.cat([a.ids[a.prompt :] for a in given]),
        torch.tensor([q.right for q in questions]),
    )
