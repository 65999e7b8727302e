"""T3: dependence of activations on the input and on the label, by HSIC and by MINE."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import spearmanr
from torch import Tensor

from ontogeny.activations.activations import Activations
from ontogeny.data.concept import Concept
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.metrics.dependence import hsic, nhsic, zscore
from ontogeny.records import Record
from ontogeny.statistics.mine import mine
from ontogeny.studies.tracing._claims import LARGER_END, PEAK, TRAINED, UNTRAINED
from ontogeny.studies.tracing._models import Settings, Snapshot, middle_layer


def dependence_rows(
    settings: Settings, lab: Lab, family: str, concept: Concept, snapshots: Sequence[Snapshot]
) -> Iterator[Record]:
    """Rows of the dependence on input and label in the middle layer by each estimator, with the null runs of their claims."""
    y, n, steps = concept.labels().float()[:, None], len(concept.examples), [s.step for s in snapshots]
    reads = [snapshot.activations[concept.name] for snapshot in snapshots]
    t, first = (torch.stack([read.parts["resid"][layer] for read in reads]) for layer in (_layer(reads), 1))
    embedded = torch.stack([read.inputs for read in reads])
    held_out, rng = concept.group_ids() % 2 == 1, np.random.default_rng([lab.seed, 8])
    shuffled = y[torch.from_numpy(rng.permutation(n))]
    halves, half_out = _halves(held_out, len(snapshots), rng)
    by_label: dict[str, list[float]] = {}
    for name in ("paper", "median", "mine") if family == "GPT-NeoX" else ("paper",):
        x = first if name == "paper" else embedded
        tx = _dependence(settings, name, t, x, held_out, lab.seed)
        ty = by_label[name] = _dependence(settings, name, t, y, held_out, lab.seed)
        ty_null = _dependence(settings, name, t, shuffled, held_out, lab.seed)
        still = _dependence(settings, name, t[-1][halves], x[-1][halves], half_out, lab.seed)
        for metric, control, values in (("tx", None, tx), ("ty", None, ty), ("ty", "shuffled_labels", ty_null)):
            for step, value in zip(steps, values, strict=True):
                yield lab.row(
                    f"{name}_{metric}_along", value, family, step=step, control=control, n=n, concept=concept.name
                )
        for control, values in ((None, tx), ("one_checkpoint", still)):
            yield lab.row(f"{name}_tx", max(values[1:-1]), f"{family}, {PEAK}", control=control, n=n)
            yield lab.row(f"{name}_tx", max(values[0], values[-1]), f"{family}, {LARGER_END}", control=control, n=n)
        for control, values in ((None, ty), ("shuffled_labels", ty_null)):
            yield lab.row(f"{name}_ty", values[0], f"{family}, {UNTRAINED}", control=control, n=n)
            yield lab.row(f"{name}_ty", values[-1], f"{family}, {TRAINED}", control=control, n=n)
    if "mine" in by_label:
        order = rng.permutation(len(steps))
        for control, other in (
            (None, by_label["mine"]),
            ("permuted_checkpoints", [by_label["mine"][i] for i in order]),
        ):
            correlation = float(spearmanr(by_label["paper"], other).statistic)
            yield lab.row("agreement", correlation, "MINE and HSIC", control=control, n=len(steps))
            yield lab.row("agreement", 0.0, "chance", control=control, n=len(steps))


def _dependence(
    settings: Settings,
    name: str,
    t: Float[Tensor, "checkpoint example d"],
    other: Float[Tensor, "*checkpoint example p"],
    held_out: Bool[Tensor, " example"],
    seed: int,
) -> list[float]:
    """Dependence of the activations on the input (three axes) or on the label (two) by one estimator, at each checkpoint."""
    if name == "mine":
        each = other.expand(len(t), -1, -1) if other.ndim == 2 else other
        return list(map(float, mine(t, each, held_out=held_out, steps=settings.mine_steps, seed=seed)))
    values = []
    for i, here in enumerate(t):
        z = zscore(here[None])[0].double()
        given = other.double() if other.ndim == 2 else zscore(other[i : i + 1])[0].double()
        # The normalised form saturates at the median width: before training it is within 1 % of its largest value.
        value = nhsic(z, given, "gaussian_50") if name == "paper" else hsic(z, given, "gaussian_median")
        values.append(float(value))
    return values


def _layer(reads: Sequence[Activations]) -> int:
    return middle_layer(len(reads[0].parts["resid"]) - 1)


def _halves(
    held_out: Bool[Tensor, " example"], count: int, rng: np.random.Generator
) -> tuple[Tensor, Bool[Tensor, " half"]]:
    """Random halves of the examples, with as many held-out ones each; and which these are."""
    sides = [np.flatnonzero(held_out.numpy() == side) for side in (False, True)]
    halves = [np.concatenate([rng.permutation(side)[: len(side) // 2] for side in sides]) for _ in range(count)]
    return torch.from_numpy(np.stack(halves)), torch.arange(len(halves[0])) >= len(sides[0]) // 2
