"""Study: can a planted stage be named from one training run, without training again?

Accountability attribution (arXiv:2506.00175): a small convolutional network learns digits in three stages; in one of them a bright patch
names the class. The behaviour is the gap between images whose patch names another digit and images whose patch names theirs. Every
estimate of a stage's effect is compared with retraining without the stage.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.attribution.baselines import gradient_dot_scores, order_scores
from ontogeny.attribution.checkpoint_tiers import checkpoint_scores
from ontogeny.attribution.metasmoothness import metasmoothness
from ontogeny.attribution.path import PathStage, TrainingPath, record_path
from ontogeny.attribution.recorded_tiers import Behaviour, behaviour_value, reverse_scores
from ontogeny.attribution.retraining import rank_correlation, retrained_effects
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
    "Generated seven-segment digits in place of MNIST; three stages of equal length.",
    "Retraining is repeated over data orders, since order alone moves the end point; the paper compares with one retraining.",
    "A stage is named only if the final gap is significantly above zero over images.",
)
CHALLENGES = (9, 11, 13)
STAGES = 3


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


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(steps=6, orders=2),
    "tiny": Settings(),
    "small": Settings(steps=150, orders=5, controls=4),
    "paper": Settings(steps=1000, orders=5, classes=10, controls=4),
}
SECONDS = {"smoke": 3, "tiny": 5, "small": 120, "paper": 6000}
_TIERS = (
    "hessian",
    "thinned",
    "no hessian",
    "endpoint",
    "subtraction",
    "addition",
    "linearised",
    "gradient dot",
    "order",
)


def _against(tier: str, metric: str = "rank_correlation") -> Separation:
    return Separation(
        Quantity(metric, tier), Quantity(metric, "order"), unit="difference in rank correlation with retraining"
    )


CLAIMS = (
    Claim(
        "planted_stage_is_named",
        "The first-order estimate with curvature names the planted stage more often than chance.",
        "arXiv:2506.00175, section 5",
        "stages with spurious correlations are identified",
        Separation(Quantity("named_planted", "hessian"), Quantity("named_planted", "chance"), unit="share of seeds"),
        "unplanted",
    ),
    Claim(
        "agrees_with_retraining",
        "The first-order estimate with curvature ranks effects as retraining does, better than the order of the stages.",
        "arXiv:2506.00175, section 5",
        "high correlation with retraining",
        _against("hessian"),
        "shuffled",
    ),
    Claim(
        "curvature_matters",
        "Without the Hessian the estimate is further from retraining.",
        "arXiv:2506.00175, section 4; toy evidence in the derivation",
        "dropping the Hessian over-blames early stages",
        Separation(Quantity("error", "no hessian"), Quantity("error", "hessian"), unit="relative error"),
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
    planted = lab.seed % STAGES
    yield lab.row("named_planted", 1 / STAGES, "chance")
    yield lab.row("named_planted", 1 / STAGES, "chance", control="unplanted")
    yield from _experiment(settings, lab, planted, None)
    for index in range(settings.controls):
        lab.on_activity("unplanted control", index, settings.controls)
        yield from _experiment(settings, lab, planted, "unplanted", repeat=index)


def _experiment(settings: Settings, lab: Lab, planted: int, control: str | None, repeat: int = 0) -> Iterator[Record]:
    seed = lab.seed + 1000 * repeat + (500 if control else 0)
    # The control differs in one thing: in the planted stage the patch is at a random place.
    patch: digits.Patch = "aligned" if control is None else "random"
    worlds = [
        digits.make(digits.Config(settings.classes, patch=patch if i == planted else "absent", seed=seed))
        for i in range(STAGES)
    ]
    behaviours, gaps = _behaviours(worlds[0])
    make, stages = _network(settings, worlds[0]), _stages(settings, worlds, seed)
    path = record_path(make, stages(0), seed=seed)
    truth = retrained_effects(make, stages, behaviours, seeds=[seed], orders=range(settings.orders))
    estimates = dict(_estimates(path, behaviours))
    rng = np.random.default_rng([seed, 3])
    mean = truth.mean
    for tier in _TIERS:
        scores = estimates[tier]
        named = _named(scores[:, 0], gaps(path))
        yield lab.row("named_planted", float(named == planted), tier, control=control)
        yield lab.row("named_any", float(named is not None), tier, control=control)
        if control is None:
            yield lab.row("rank_correlation", rank_correlation(scores.ravel(), mean.ravel()), tier, n=mean.size)
            mixed = rng.permutation(scores.ravel())
            # The null: the same numbers on other stages and behaviours, for this tier and for the order of the stages.
            yield lab.row(
                "rank_correlation", rank_correlation(mixed, mean.ravel()), tier, n=mean.size, control="shuffled"
            )
            error = float(np.abs(scores - mean).sum() / np.abs(mean).sum())
            yield lab.row("error", error, tier, n=mean.size)
            yield lab.row(
                "error",
                float(np.abs(mixed.reshape(mean.shape) - mean).sum() / np.abs(mean).sum()),
                tier,
                control="shuffled",
            )
    if control is None and settings.orders > 1:
        yield lab.row("noise_ceiling", truth.noise_ceiling, "retraining", n=mean.size)
        smooth = metasmoothness(make, stages(0), planted, seed=seed)
        yield lab.row("metasmoothness", smooth.value, "planted stage")
    without = record_path(make, stages(0), seed=seed, skip=planted)
    for name, one in (("all stages", path), ("without the stage", without)):
        values = gaps(one)
        yield lab.row("gap", float(values.mean()), name, control=control, n=len(values))
    for index, step in enumerate(path.steps):
        if index % max(1, len(path.steps) // 30) == 0:
            gap = behaviour_value(path, step.state.parameters, behaviours[0])
            yield lab.row("gap_along", gap, f"planted in stage {planted + 1}", step=index, control=control)


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
        return [PathStage(f"stage {i + 1}", loss, batches(i, order), replace(config)) for i in range(STAGES)]

    return of_order


def _behaviours(world: digits.World) -> tuple[list[Behaviour], Callable[[TrainingPath], np.ndarray]]:
    """The spurious gap and the plain loss; and the gap of each image at the end of a path."""
    sets = {
        name: (torch.from_numpy(batch.inputs).float(), torch.from_numpy(batch.coordinates["digit"]))
        for name, batch in digits.evaluation(world).items()
    }

    def losses(network: nn.Module, name: str) -> Tensor:
        inputs, digit = sets[name]
        return nn.functional.cross_entropy(network(inputs), digit, reduction="none")

    def gap(network: nn.Module) -> Tensor:
        return losses(network, "conflicting").mean() - losses(network, "aligned").mean()

    def plain(network: nn.Module) -> Tensor:
        return losses(network, "absent").mean()

    def gaps(path: TrainingPath) -> np.ndarray:
        path.network.load(path.final.parameters)
        with torch.no_grad():
            return np.asarray(
                (losses(path.network.network, "conflicting") - losses(path.network.network, "aligned")).double()
            )

    return [gap, plain], gaps


def _estimates(path: TrainingPath, behaviours: Sequence[Behaviour]) -> Iterator[tuple[str, np.ndarray]]:
    """Each estimate as stage × behaviour."""
    for name, how in (("hessian", "hessian"), ("thinned", "thinned"), ("no hessian", "none")):
        columns = [reverse_scores(path, b, curvature=how, every=5).scores for b in behaviours]  # type: ignore[arg-type]
        yield name, np.array(columns).T
    yield "gradient dot", np.array([gradient_dot_scores(path, b) for b in behaviours]).T
    yield "order", np.array([order_scores(STAGES)] * len(behaviours)).T
    ends = [path.network.split(end) for end in path.ends]

    def flat(weights: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([weight.flatten() for weight in weights.values()])

    tiers: dict[str, list[list[float]]] = {}
    for behaviour in behaviours:

        def value(weights: Mapping[str, Tensor], behaviour: Behaviour = behaviour) -> Any:
            return np.array([behaviour_value(path, flat(weights), behaviour)])

        def gradient(weights: Mapping[str, Tensor], behaviour: Behaviour = behaviour) -> Any:
            return path.network.split(path.network.gradient(flat(weights), lambda network, _: behaviour(network), None))

        for name, values in checkpoint_scores(ends, value, gradient).items():
            tiers.setdefault(name, []).append([float(v[0]) for v in values])
    for name, values_by_behaviour in tiers.items():
        yield name, np.array(values_by_behaviour).T


def _named(scores: np.ndarray, gaps: np.ndarray) -> int | None:
    """The stage with the largest effect on the gap; none if the final gap is not significantly above zero."""
    error = float(gaps.std(ddof=1)) / len(gaps) ** 0.5
    return int(scores.argmax()) if float(gaps.mean()) > 3 * error else None
