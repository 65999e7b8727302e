"""Study: can a planted stage be named from one training run, without training again?

Accountability attribution (arXiv:2506.00175): a small convolutional network learns digits in three stages; in one of them a bright patch
names the class. The behaviour is the gap between images whose patch names another digit and images whose patch names theirs. Every
estimate of a stage's effect is compared with retraining without the stage.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.attribution.comparison import (
    TIERS,
    StageExperiment,
    compare_tiers,
    comparison_rows,
    follow_up_rows,
    tier_estimates,
    validity_rows,
)
from ontogeny.attribution.path import PathStage, TrainingPath, record_path
from ontogeny.attribution.stage_study import (
    AGREES_WITH_RETRAINING,
    CURVATURE_MATTERS,
    PLANTED_STAGE_IS_NAMED,
    PLANTED_STAGES,
    gap_rows,
    naming_rows,
    planted_runs,
    planted_stage_names,
)
from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Quantity
from ontogeny.claims.shapes import Separation
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.training.loop import TrainingConfig
from ontogeny.worlds import digits

TITLE = "Which stage is to blame"
PAPER = "Who Gets Credit or Blame? Attributing Accountability in Modern AI Systems, arXiv:2506.00175"
SETUP = """
A convolutional network learns seven-segment digits in three stages of AdamW. In the planted stage a patch names the digit; in the others
there is none. Effects of the stages on the spurious gap (loss on conflicting minus loss on aligned images) and on the plain loss are
estimated from the recorded path and from checkpoints, and compared with retrainings without each stage, over data orders. In unplanted
controls the patch of that stage is at a random place.
"""
DIFFERENCES = (
    "Generated seven-segment digits in place of MNIST, unless a folder of MNIST is given; three stages of equal length.",
    "Retraining is repeated over data orders, since order alone moves the end point; the paper compares with one retraining.",
    "A stage is named only if the final gap is significantly above zero over images.",
)
CHALLENGES = (9, 11, 13)
VERSION = 2


@dataclass(frozen=True)
class Settings:
    steps: int = 50
    """Steps of each stage."""
    rate: float = 3e-3
    batch: int = 32
    classes: int = 4
    orders: int = 2
    """Data orders over which retraining is repeated."""
    controls: int = 1
    """Unplanted runs per seed."""
    rates: tuple[float, ...] = (1e-3,)
    """Further learning rates at which all estimates are compared with retraining."""
    lengths: tuple[int, ...] = ()
    """Further numbers of steps per stage at which they are compared."""
    images: str = ""
    """Folder of handwritten digits in the IDX format, such as MNIST; "" for seven-segment digits."""


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(steps=3, orders=2, rates=(1e-3,)),
    "tiny": Settings(),
    "small": Settings(steps=150, orders=5, controls=4, rates=(3e-4, 1e-3), lengths=(50,)),
    "paper": Settings(steps=1000, orders=5, classes=10, controls=4, rates=(3e-4, 1e-3), lengths=(100, 300)),
}
SECONDS = {"smoke": 3, "tiny": 20, "small": 300, "paper": 15000}


CLAIMS = (
    PLANTED_STAGE_IS_NAMED,
    AGREES_WITH_RETRAINING,
    replace(CURVATURE_MATTERS, source="arXiv:2506.00175, section 4; toy evidence in the derivation"),
    Claim(
        "curvature_matters_at_a_small_rate",
        "At a third of the learning rate the estimate without the Hessian is further from retraining.",
        "arXiv:2506.00175, section 4",
        "dropping the Hessian over-blames early stages",
        Separation(
            Quantity("grid_error", "no hessian", coords={"rate": "0.001"}),
            Quantity("grid_error", "hessian", coords={"rate": "0.001"}),
            unit="relative error",
        ),
        "shuffled",
    ),
    Claim(
        "skipping_closes_the_gap",
        "Training without the planted stage closes the spurious gap.",
        "arXiv:2506.00175, section 5",
        "skipping the stage removes the spurious correlation",
        Separation(Quantity("gap", "all stages"), Quantity("gap", "without the stage"), threshold=0.1, unit="nats"),
        "unplanted",
    ),
)
PICTURES = (
    StudyPicture("Spurious gap along training: loss on conflicting minus loss on aligned images", ("gap_along",)),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: a planted run, whose planted stage is the seed modulo three, and its unplanted controls."""
    return planted_runs(lab, settings.controls, partial(_experiment, settings, lab))


def _experiment(settings: Settings, lab: Lab, planted: int, seed: int, control: str | None) -> Iterator[Record]:
    # The control differs in one thing: in the planted stage the patch is at a random place.
    patch: digits.Patch = "aligned" if control is None else "random"
    worlds = [
        digits.make(
            digits.Config(
                settings.classes, patch=patch if i == planted else "absent", seed=seed, images=settings.images
            )
        )
        for i in range(PLANTED_STAGES)
    ]
    sets = _sets(worlds[0])
    experiment = _experiment_of(settings, worlds, sets, seed)
    names = planted_stage_names(planted)
    without = record_path(experiment.make, experiment.stages(0), seed=seed, skip=planted)
    if control is None:
        comparison = compare_tiers(experiment, seed=seed, orders=settings.orders)
        path, estimates = comparison.path, comparison.estimates
        yield from comparison_rows(lab, comparison, names)
        yield from validity_rows(lab, comparison, names)
        yield from follow_up_rows(lab, comparison, planted, without, lambda network: _accuracies(network, sets))
        for rate, steps in _grid(settings):
            lab.on_activity(f"rate {rate:g}, {steps} steps", 0, 1)
            main = (rate, steps) == (settings.rate, settings.steps)
            other = _experiment_of(replace(settings, rate=rate, steps=steps), worlds, sets, seed)
            compared = comparison if main else compare_tiers(other, seed=seed, orders=settings.orders)
            for row in comparison_rows(lab, compared, names, rate=rate, steps=steps):
                # Under names of their own, so that claims read the main setting only.
                if row.metric != "stage_effect":
                    yield replace(row, metric=f"grid_{row.metric}")
    else:
        path = record_path(experiment.make, experiment.stages(0), seed=seed)
        estimates = tier_estimates(experiment, path)
    gaps = _gaps(path, sets)
    mean, error = float(gaps.mean()), float(gaps.std(ddof=1)) / len(gaps) ** 0.5
    yield from naming_rows(lab, {tier: estimates[tier] for tier in TIERS}, planted, mean, error, control)
    yield from gap_rows(lab, experiment, path, without, planted, lambda one: _gaps(one, sets), control)


def _grid(settings: Settings) -> list[tuple[float, int]]:
    """The setting itself, further learning rates at the same length, and further lengths at the same rate."""
    return [
        (settings.rate, settings.steps),
        *((rate, settings.steps) for rate in settings.rates),
        *((settings.rate, steps) for steps in settings.lengths),
    ]


def _experiment_of(
    settings: Settings, worlds: Sequence[digits.World], sets: Mapping[str, tuple[Tensor, Tensor]], seed: int
) -> StageExperiment:
    def gap(network: nn.Module) -> Tensor:
        return _losses(network, sets["conflicting"]).mean() - _losses(network, sets["aligned"]).mean()

    def plain(network: nn.Module) -> Tensor:
        return _losses(network, sets["absent"]).mean()

    return StageExperiment(
        _network(settings, worlds[0]),
        _stages(settings, worlds, seed),
        {"spurious gap": gap, "plain loss": plain},
        {"spurious gap": "nats", "plain loss": "nats"},
    )


def _network(settings: Settings, world: digits.World) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 12, 10)),
            nn.Conv2d(1, 6, 3, padding=1),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(6 * 30, settings.classes),
        )

    return make


def _stages(settings: Settings, worlds: Sequence[digits.World], seed: int) -> Callable[[int], list[PathStage]]:
    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(network(batch[0]), batch[1])

    def batches(stage: int, order: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        pool = digits.sample(worlds[stage], np.random.default_rng([seed, stage]), 32 * settings.batch)
        inputs = torch.from_numpy(pool.inputs).float()
        digit = torch.from_numpy(pool.coordinates["digit"])

        def batch(step: int) -> tuple[Tensor, Tensor]:
            rows = torch.from_numpy(
                np.random.default_rng([seed, stage, order, step]).integers(0, len(pool), settings.batch)
            )
            return inputs[rows], digit[rows]

        return batch

    config = TrainingConfig(settings.steps, settings.rate, warmup=5, weight_decay=0.01, betas=(0.9, 0.98))

    def of_order(order: int) -> list[PathStage]:
        return [PathStage(f"stage {i + 1}", loss, batches(i, order), replace(config)) for i in range(PLANTED_STAGES)]

    return of_order


def _sets(world: digits.World) -> dict[str, tuple[Tensor, Tensor]]:
    """Images and digits of each evaluation set."""
    return {
        name: (torch.from_numpy(batch.inputs).float(), torch.from_numpy(batch.coordinates["digit"]))
        for name, batch in digits.evaluation(world).items()
    }


def _losses(network: nn.Module, images: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(network(images[0]), images[1], reduction="none")


def _gaps(path: TrainingPath, sets: Mapping[str, tuple[Tensor, Tensor]]) -> np.ndarray:
    """The spurious gap of each image at the end of a path."""
    path.network.load(path.final.parameters)
    network = path.network.network
    with torch.no_grad():
        return np.asarray((_losses(network, sets["conflicting"]) - _losses(network, sets["aligned"])).double())


def _accuracies(network: nn.Module, sets: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Accuracy by group of images: each kind of patch."""
    return {name: float((network(x).argmax(1) == digit).float().mean()) for name, (x, digit) in sets.items()}
