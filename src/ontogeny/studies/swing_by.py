"""Study: in which order are concepts learned, and why does a model first move towards a wrong combination of them?

Swing-by dynamics (arXiv:2410.08309). Two parts: gradient descent on the symmetric two-layer model U Uᵀ, whose expected loss is a function
of the second moment of the data, and minibatch SGD of linear and ReLU networks on sampled points, measured every few steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import EventOrder, NonMonotone, Relation, Separation
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.worlds import corners

TITLE = "Swing-by dynamics"
PAPER = "Swing-by Dynamics in Concept Learning and Compositional Generalization, arXiv:2410.08309"
SETUP = """
A model learns the identity on Gaussian clusters that lie on the axes of a box, one axis per concept. The corner with all concepts is
held out. Its output there is measured in concept coordinates: in which order the coordinates are learned, and whether the loss at the
corner rises on its way down while the training loss falls.
"""
DIFFERENCES = (
    "Spread is a standard deviation here; in the paper's code the value named sigma is a variance.",
    "The paper's theory scripts square the second moment A; both forms are run.",
    "Measured every few steps, not once per epoch, at which a swing-by is usually missed.",
    "The paper's seeds for several descents were selected; here all seeds count.",
    "The check on a diffusion model is the study image_concepts, which compares it with the theory in numbers.",
)
CHALLENGES = (2, 3)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    theory_seeds: int = 20
    """Initialisations of the two-layer theory per seed of the study."""
    theory_steps: int = 6000
    theory_rate: float = 0.01
    measured: int = 120
    """Measured steps of each curve."""
    steps: int = 2500
    """Steps of SGD."""
    rate: float = 0.05
    batch: int = 128
    depths: tuple[int, ...] = (1, 2, 3, 4)
    wide: int = 64
    """Width of the control in which the box is a small part of the space."""


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(theory_seeds=4, theory_steps=1500, measured=40, steps=300, depths=(1, 2)),
    "tiny": Settings(),
    "small": Settings(theory_seeds=100, measured=300, steps=6000),
    "paper": Settings(theory_seeds=200, theory_steps=10_000, measured=500, steps=20_000, rate=0.1),
}
SECONDS = {"smoke": 2, "tiny": 24, "small": 110, "paper": 400}

_LATE, _EARLY = 0.95, 0.5
_THEORY_SPREAD = 0.05


def _learned(concept: int, condition: str, level: float = 0.9) -> Event:
    return Event(Quantity("learned", condition, coords={"concept": str(concept)}), level)


CLAIMS = (
    Claim(
        "swing_by",
        "In the two-layer theory the loss at the held-out corner rises on its way down.",
        "arXiv:2410.08309, section 4.2 and Fig. 5",
        "non-monotone test loss while the training loss falls",
        NonMonotone(Quantity("held_out_loss", "theory A²")),
        "one_layer",
    ),
    Claim(
        "stronger_first",
        "At equal spread the concept with the stronger signal is learned first.",
        "arXiv:2410.08309, section 3.2 and Fig. 2",
        "the output moves along the stronger concept first",
        EventOrder(_learned(2, "sgd"), _learned(1, "sgd")),
        "equal_signals",
    ),
    Claim(
        "spread_reverses_order",
        "A larger spread of the weaker concept reverses the order.",
        "arXiv:2410.08309, section 3.2 and Fig. 3",
        "with variance 2 along the weaker concept it is learned first",
        EventOrder(_learned(1, "wide spread"), _learned(2, "wide spread")),
        "equal_moments",
    ),
    Claim(
        "terminal_slowdown",
        "From half of the way to 95 % takes more than twice as long as the first half.",
        "arXiv:2410.08309, section 3.2",
        "exponential slow-down near the target",
        Separation(
            Quantity("late_steps", "sgd"),
            Quantity("early_steps", "sgd"),
            ratio=True,
            threshold=1.0,
            unit="log2 of late over early steps",
        ),
        "constant_speed",
    ),
    Claim(
        "deeper_swings_more",
        "The rise of the loss at the held-out corner grows with depth.",
        "arXiv:2410.08309, section 5",
        "pronounced in four layers, absent in one",
        Relation(Quantity("depth"), Quantity("largest_rise"), ("1 layer", "2 layers", "3 layers", "4 layers")),
        "one_layer",
    ),
    Claim(
        "narrow_swings_more",
        "The rise is larger in a space of 3 dimensions than in one of 64.",
        "arXiv:2410.08309, section 5",
        "in 64 dimensions only a slow-down is seen",
        Separation(
            Quantity("largest_rise", "4 layers"),
            Quantity("largest_rise", "4 layers, wide"),
            unit="share of the first loss",
        ),
        "same_width",
    ),
    Claim(
        "several_descents",
        "With three concepts the loss at the held-out corner has more descents than with one layer.",
        "arXiv:2410.08309, section 4.3 and Fig. 6",
        "multiple descents, for selected seeds",
        Separation(Quantity("rises", "three concepts"), Quantity("rises", "one layer"), threshold=0.5, unit="rises"),
        "one_layer",
    ),
    Claim(
        "weak_concept_lost",
        "With a weak signal beside strong ones the weak concept is not learned in time.",
        "arXiv:2410.08309, appendix, failure case (.7, 1.7, 3)",
        "one concept is never learned",
        Separation(
            Quantity("final_share", "failure", coords={"concept": "3"}),
            Quantity("final_share", "failure", coords={"concept": "1"}),
            threshold=0.5,
            unit="share of the strongest concept minus that of the weakest",
        ),
        "equal_signals",
    ),
)
PICTURES = (
    StudyPicture(
        "Loss at the held-out corner, two-layer theory",
        ("held_out_loss",),
        ("theory A²", "theory A"),
        log_x=True,
        caption="Every initialisation counts; the one-layer null falls steadily.",
    ),
    StudyPicture(
        "Share of each concept's target at the held-out corner, SGD",
        ("learned",),
        ("sgd", "wide spread"),
        log_x=True,
    ),
    StudyPicture(
        "Loss at the held-out corner by depth, SGD",
        ("sgd_held_out_loss",),
        ("1 layer", "2 layers", "3 layers", "4 layers"),
        log_y=True,
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: its share of the theory's initialisations, and one SGD run per condition."""
    yield from _theory_rows(settings, lab)
    runs = _sgd_runs(settings)
    for i, plan in enumerate(runs):
        lab.on_activity(f"SGD, {plan.condition}", i, len(runs))
        yield from _sgd_rows(settings, lab, plan)
    yield from _constant_speed_rows(settings, lab)


def _theory_rows(settings: Settings, lab: Lab) -> Iterator[Record]:
    two, three, failure, equal = (1.0, 2.0), (1.0, 1.7, 2.25), (0.7, 1.7, 3.0), (1.7, 1.7, 1.7)
    for condition, signals, squared in (
        ("theory A²", two, True),
        ("theory A", two, False),
        ("three concepts", three, True),
        ("failure", failure, True),
        ("failure equal", equal, True),
    ):
        lab.on_activity(condition, 0, 1)
        steps, outputs = two_layer_outputs(settings, signals, squared=squared, seed=lab.seed)
        name, control = ("failure", "equal_signals") if condition == "failure equal" else (condition, None)
        if condition.startswith("theory"):
            yield from _loss_rows(lab, settings, "held_out_loss", steps, _loss(outputs, signals), name)
            single = _one_layer_outputs(settings, signals, steps, squared=squared, seed=lab.seed)
            yield from _loss_rows(
                lab, settings, "held_out_loss", steps, _loss(single, signals), name, control="one_layer"
            )
        elif condition == "three concepts":
            single = _one_layer_outputs(settings, signals, steps, squared=squared, seed=lab.seed)
            for i, (many, one) in enumerate(
                zip(count_rises(_loss(outputs, signals)), count_rises(_loss(single, signals)), strict=True)
            ):
                seed = lab.seed * settings.theory_seeds + i
                yield lab.row("rises", many, "three concepts", seed=seed)
                yield lab.row("rises", one, "one layer", seed=seed)
                # In the null run both sides are a single layer.
                yield lab.row("rises", one, "three concepts", seed=seed, control="one_layer")
                yield lab.row("rises", one, "one layer", seed=seed, control="one_layer")
        else:
            shares = outputs[:, _half_time(settings, steps)] / np.array(signals)
            for i, share in enumerate(shares):
                for concept in range(len(signals)):
                    yield lab.row(
                        "final_share",
                        share[concept],
                        name,
                        control=control,
                        seed=lab.seed * settings.theory_seeds + i,
                        concept=concept + 1,
                    )


def _half_time(settings: Settings, steps: Floats) -> int:
    """Index of the measured step by which strong concepts are learned: a quarter of the run."""
    return int(np.searchsorted(steps, settings.theory_steps / 4))


def _loss_rows(
    lab: Lab, settings: Settings, metric: str, steps: Floats, losses: Floats, condition: str, control: str | None = None
) -> Iterator[Record]:
    for i, curve in enumerate(losses):
        seed = lab.seed * settings.theory_seeds + i
        for step, loss in zip(steps, curve, strict=True):
            yield lab.row(metric, loss, condition, step=int(step), control=control, seed=seed)


def two_layer_outputs(
    settings: Settings, signals: tuple[float, ...], *, squared: bool, seed: int
) -> tuple[Floats, Floats]:
    """Measured steps, and outputs at the held-out corner (initialisation × step × concept), of the two-layer model U Uᵀ under gradient
    descent from small positive weights.

    Args:
        squared: Whether the second moment is squared, as in the paper's scripts.
    """
    mu, a, u = _theory_start(settings, signals, squared, seed)
    steps = _measured_steps(settings.theory_steps, settings.measured)
    return steps, corners.two_layer_flow_outputs(np.diag(a), u, mu, steps.astype(int), rate=settings.theory_rate)


def _one_layer_outputs(
    settings: Settings, signals: tuple[float, ...], steps: Floats, *, squared: bool, seed: int
) -> Floats:
    """As `two_layer_outputs` for one layer from the same W, in closed form: each concept approaches its target exponentially."""
    mu, a, u = _theory_start(settings, signals, squared, seed)
    gap = u @ u.swapaxes(1, 2) - np.eye(len(mu))
    decay = np.exp(-settings.theory_rate * steps[:, None] * a)  # step × concept
    outputs: Floats = mu + np.einsum("sij,tj,j->sti", gap, decay, mu)
    return outputs


def _theory_start(
    settings: Settings, signals: tuple[float, ...], squared: bool, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Signals, diagonal of the second moment (squared or not), and the first U of each initialisation."""
    mu = np.array(signals)
    moment = mu**2 / len(mu) + _THEORY_SPREAD**2
    rng = np.random.default_rng([seed, len(mu), 7])
    return mu, moment**2 if squared else moment, rng.uniform(0, 0.2, (settings.theory_seeds, len(mu), len(mu)))


def _loss(outputs: Floats, signals: tuple[float, ...]) -> Floats:
    loss: Floats = ((outputs - np.array(signals)) ** 2).sum(-1) / 2
    return loss


def count_rises(losses: Floats, share: float = 0.01) -> list[int]:
    """Number of rises in each curve by more than a share of its first value, each from the lowest point before it."""
    counts = []
    for curve in losses:
        low, high, count = curve[0], curve[0], 0
        rising = False
        for value in curve[1:]:
            if rising:
                high = max(high, value)
                if value < high - share * curve[0]:
                    rising, low = False, value
            else:
                low = min(low, value)
                if value > low + share * curve[0]:
                    rising, high, count = True, value, count + 1
        counts.append(count)
    return counts


def _measured_steps(last: int, count: int) -> Floats:
    steps: Floats = np.unique(np.rint(np.linspace(0, last**0.5, count) ** 2))
    return steps


@dataclass(frozen=True)
class _SgdRun:
    """One run of SGD: the condition and the null run of its rows, its data and its network."""

    condition: str
    control: str | None
    world: corners.Config
    depth: int
    label: int
    """Depth that the rows state; in the null run it is not that of the network."""
    relu: bool = False
    repeat: int = 0
    """Distinguishes independent runs of one network."""


def _sgd_runs(settings: Settings) -> list[_SgdRun]:
    small = corners.Config(width=3, turned=False, points=100)
    wide = replace(small, width=settings.wide, turned=True)
    runs = [
        _SgdRun("sgd", None, small, 1, 1),
        _SgdRun("sgd", "equal_signals", replace(small, signals=(1.5, 1.5)), 1, 1),
        _SgdRun("wide spread", None, replace(small, spread=(1.5, 0.2)), 1, 1),
        # Both second moments are equal: 1/3 + 1.04 = 4/3 + 0.2².
        _SgdRun("wide spread", "equal_moments", replace(small, spread=(1.04**0.5, 0.2)), 1, 1),
        _SgdRun("2 layers, ReLU", None, small, 2, 2, relu=True),
    ]
    deepest = max(settings.depths)
    for depth in settings.depths:
        name = f"{depth} layer{'s' if depth > 1 else ''}"
        runs += [
            _SgdRun(name, None, small, depth, depth),
            _SgdRun(name, "one_layer", small, 1, depth, repeat=depth),
            _SgdRun(f"{name}, wide", None, wide, depth, depth),
        ]
        if depth == deepest:
            runs += [
                _SgdRun(name, "same_width", small, depth, depth, repeat=10),
                _SgdRun(f"{name}, wide", "same_width", small, depth, depth, repeat=11),
            ]
    return runs


def _sgd_rows(settings: Settings, lab: Lab, plan: _SgdRun) -> Iterator[Record]:
    """Rows of minibatch SGD: loss and concept coordinates at the held-out corner, and the summary of both."""
    world = corners.make(replace(plan.world, seed=lab.seed))
    condition, control, width = plan.condition, plan.control, world.config.width
    target = torch.tensor(world.held_out @ world.axes, dtype=torch.float32)
    axes = torch.tensor(world.axes, dtype=torch.float32)

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for i in range(plan.depth):
            linear = nn.Linear(width, width, bias=False)
            nn.init.normal_(linear.weight, std=0.3 / width**0.5 if plan.depth > 1 else 0.05)
            layers += [linear, nn.ReLU()] if plan.relu and i < plan.depth - 1 else [linear]
        return nn.Sequential(*layers)

    def batches(step: int) -> Tensor:
        rng = np.random.default_rng([lab.seed, plan.repeat, step])
        return torch.tensor(corners.sample(world, rng, settings.batch).inputs, dtype=torch.float32)

    def objective(network: nn.Module, batch: Tensor, _: nn.Module | None) -> Tensor:
        return (network(batch) - batch).square().sum(-1).mean() / 2

    config = TrainingConfig(
        settings.steps, settings.rate, warmup=0, floor=1.0, weight_decay=0.0, clip=10.0, optimiser="sgd", momentum=0.0
    )
    marks = set(_measured_steps(settings.steps, settings.measured).astype(int))
    steps, losses, shares = [], [], []
    for session in training_sessions(TrainingRecipe(make, batches, objective, config, lab.seed + 1000 * plan.repeat)):
        if session.step in marks:
            with torch.no_grad():
                output = session.network(target)
            steps.append(session.step)
            losses.append(float((output - target).square().sum() / 2))
            shares.append((axes @ output / torch.tensor(world.held_out)).tolist())
    for step, loss, share in zip(steps, losses, shares, strict=True):
        yield lab.row("sgd_held_out_loss", loss, condition, step=step, control=control)
        for concept, value in enumerate(share, 1):
            yield lab.row("learned", value, condition, step=step, control=control, concept=concept)
    lowest = np.minimum.accumulate(losses)
    yield lab.row("largest_rise", float((np.array(losses) - lowest).max() / losses[0]), condition, control=control)
    yield lab.row("depth", plan.label, condition, control=control)
    if condition == "sgd" and control is None:
        yield from _speed_rows(lab, np.array(steps), np.array([s[1] for s in shares]), None)


def _constant_speed_rows(settings: Settings, lab: Lab) -> Iterator[Record]:
    """The null of the slow-down: an output that moves at constant speed."""
    steps = _measured_steps(settings.steps, settings.measured)
    yield from _speed_rows(lab, steps, steps / settings.steps, "constant_speed")


def _speed_rows(lab: Lab, steps: Floats, share: Floats, control: str | None) -> Iterator[Record]:
    """Steps from the start to half of the target, and from there to 95 % of it."""
    half, late = (float(np.interp(level, np.maximum.accumulate(share), steps)) for level in (_EARLY, _LATE))
    reason = f"the output does not reach {_LATE:.0%} of its target"
    reached = share.max() >= _LATE
    yield lab.row("early_steps", half if reached else float("nan"), "sgd", control=control, reason=reason)
    yield lab.row("late_steps", late - half if reached else float("nan"), "sgd", control=control, reason=reason)
