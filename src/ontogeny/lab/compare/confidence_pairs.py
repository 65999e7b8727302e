"""Two stages' confidence: the difference, whether the same neurons are candidates, and what comes along with their rows."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.lab.calibration import ece
from ontogeny.lab.compare.cells import Table
from ontogeny.lab.compare.confidence_asked import Question
from ontogeny.lab.compare.confidence_measured import Measured, Number, measured
from ontogeny.lab.compare.confidence_neurons import Layer
from ontogeny.lab.compare.confidence_settings import ConfidenceSettings
from ontogeny.lab.compare.confidence_swap import Kept, kept, swapped
from ontogeny.lab.entropy_neurons import correspond, like_in_norm, overlap
from ontogeny.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site

LEAST = 0.5
"""Share of the neurons that must find themselves in the other stage before sets of their numbers mean anything."""
SWAPPED = ("entropy", "ece")


def gap_rows(table: Table, stage: str, other: str, sure: Mapping[str, Measured]) -> Iterator[Record]:
    """The stage less the other one, on the same texts and questions."""
    for name, number in sure[stage].numbers.items():
        gap = number - sure[other].numbers[name]
        yield table.row("confidence_gap", gap.value, stage, other, ends=gap.ends, n=gap.n, coords={"of": name})


def apart(stage: str, other: str, layers: Mapping[str, Layer]) -> tuple[float, str]:
    """How many neurons find themselves in the other stage, and why the two cannot be compared, if so."""
    mine, theirs = layers[stage], layers[other]
    if mine.rows.shape != theirs.rows.shape:
        shapes = [
            f"{name} {len(one.rows)} neurons of width {one.rows.shape[1]}"
            for name, one in ((stage, mine), (other, theirs))
        ]
        return math.nan, f"the last MLPs differ: {', '.join(shapes)}"
    share = correspond(mine.rows, theirs.rows)
    if share < LEAST:
        return (
            share,
            f"only {share:.0%} of the neurons find themselves in {other}: no common ancestry, so numbers mean nothing",
        )
    return share, ""


def overlap_rows(
    table: Table, stage: str, other: str, layers: Mapping[str, Layer], settings: ConfidenceSettings
) -> Iterator[Record]:
    """Whether the neurons are the same, whether the same are candidates, and how their ratios agree."""
    share, why = apart(stage, other, layers)
    mine, theirs = layers[stage], layers[other]
    site, n = Site("neuron", mine.found.layer), len(mine.rows)
    yield table.row("neuron_match", share, stage, other, site=site, n=min(n, 512), reason=why)
    for by in mine.candidates:
        coords = {"by": by}
        if why:
            yield table.row("neuron_overlap", math.nan, stage, other, site=site, n=0, coords=coords, reason=why)
            continue
        found = overlap(mine.candidates[by], theirs.candidates[by], among=n)
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


def donors(stage: str, order: Sequence[str], crossed: int) -> list[str]:
    """The stages whose rows are put into this one."""
    if len(order) <= crossed:
        return [name for name in order if name != stage]
    mine = order.index(stage)
    near = {0, mine - 1, mine + 1} if mine else set(range(1, len(order)))
    return [order[i] for i in sorted(near) if 0 <= i < len(order) and i != mine]


def swap_rows(
    table: Table,
    stage: str,
    model: Model,
    texts: Sequence[str],
    questions: Sequence[Question],
    sure: Mapping[str, Measured],
    layers: Mapping[str, Layer],
    settings: ConfidenceSettings,
) -> Iterator[Record]:
    """The rows of every other stage's candidates put into this one, and as many rows of other neurons of the same norm."""
    site, plain = Site("neuron", layers[stage].found.layer), sure[stage].numbers
    draws: dict[str, list[list[int]]] = {}
    for donor in donors(stage, list(layers), settings.crossed):
        _, why = apart(stage, donor, layers)
        if why:
            for of in SWAPPED:
                yield table.row("swap_effect", math.nan, stage, donor, site=site, n=0, coords={"of": of}, reason=why)
            continue
        chosen, found = layers[donor].candidates["variance"], layers[donor].found
        draws[donor] = [like_in_norm(found, chosen, seed=settings.seed + draw) for draw in range(settings.swaps)]
    if not draws:
        return
    every = {neuron for sets in draws.values() for drawn in sets for neuron in drawn}
    end = kept(model, texts, questions, sorted(every), tokens=settings.tokens)
    for donor, sets in draws.items():
        chosen = layers[donor].candidates["variance"]
        with swapped(model, layers[donor].rows, chosen):
            after = measured(model, texts, questions, settings).numbers
        nulls = _random(end, layers[donor], sets, settings)
        for of in SWAPPED:
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
            yield _share(table, stage, donor, site, change, sure[donor].numbers[of] - plain[of], of)


def _random(
    of: Kept, layer: Layer, draws: Sequence[Sequence[int]], settings: ConfidenceSettings
) -> dict[str, Float[Tensor, " draw"]]:
    """Entropy and ECE under the donor's rows of each random set."""
    found = [of.under(layer.rows, drawn) for drawn in draws]
    return {
        "entropy": torch.stack([entropy.mean() for entropy, _ in found]),
        "ece": torch.cat([ece(said.confidence, said.hit, bins=settings.bins) for _, said in found]),
    }


def _share(table: Table, stage: str, donor: str, site: Site, change: Number, gap: Number, of: str) -> Record:
    """What part of the difference between the stages the rows bring along."""
    low, high = gap.ends
    if low <= 0 <= high:
        why = f"the stages do not differ for sure ({gap.value:.3f}, {low:.3f} to {high:.3f})"
        return table.row("swap_share", math.nan, stage, donor, site=site, n=0, coords={"of": of}, reason=why)
    share = Number(change.value / gap.value, change.samples / gap.samples, change.n, change.groups)
    return table.row("swap_share", share.value, stage, donor, site=site, ends=share.ends, n=share.n, coords={"of": of})
