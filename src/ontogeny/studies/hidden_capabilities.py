"""Study: can a model be made to combine concepts before a plain prompt shows it, and in which order are concepts learned?

Emergence of Hidden Capabilities (arXiv:2406.19370), in the vector form: a conditional diffusion model learns three of four combinations of
two concepts. At the held-out one it is prompted plainly, beyond the range of its conditions, and in the space of its condition's embedding.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.claims.claim import Claim
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import ElicitationGap, EventOrder, PowerLaw, Relation, Separation
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.studies._prompting import elicited_scores, shares_at_half, turn_and_saturation, ways_of_asking
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.worlds import concept_space

TITLE = "Hidden capabilities in concept space"
PAPER = "Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space, arXiv:2406.19370"
SETUP = """
A small conditional diffusion model learns points with two concepts, of which one combination is held out. Along training its outputs for
that combination are read in concept coordinates: under the plain condition, under conditions further out (over-prompting), and with the
embedding of the condition moved along the concepts (latent intervention). Elicited curves are the best of the plain prompt and of four
strengths, chosen on one half of the samples and reported on the other. In the null run the moves are as long and in as many strengths,
along attributes other than the concepts or in a random direction of the embedding, averaged over two directions.
"""
DIFFERENCES = (
    "Points in eight dimensions and an MLP in place of images of circles and a U-Net; the study image_concepts has the images.",
    "Learned without the paper's gradient clip of .01, which makes every step as long.",
    "Deterministic sampling in 20 steps; attributes are read from the output by projection, without a trained classifier.",
    "The strength of an elicitation is chosen on other samples than those it is reported on.",
)
CHALLENGES = (2,)
_DIRECTIONS = 2
"""Unrelated moves of each kind, each in four strengths, over which the null is averaged."""
_SIGNALS = (0.2, 0.3, 0.45, 0.6)
_RANDOM = "unrelated moves"


@dataclass(frozen=True)
class Settings:
    steps: int = 800
    rate: float = 1e-3
    batch: int = 128
    hidden: int = 64
    noise_levels: int = 50
    sampling_steps: int = 20
    samples: int = 64
    """Generated points of each prompt."""
    measured: int = 20
    """Measured steps, spaced as squares; those of the first twentieth of training are left out."""


PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(steps=10, measured=4, samples=8, sampling_steps=3, hidden=16),
    "tiny": Settings(),
    "small": Settings(steps=6000, samples=256, measured=80, hidden=128),
    "paper": Settings(steps=20_000, samples=512, measured=200, hidden=256, sampling_steps=50),
}
SECONDS = {"smoke": 1, "tiny": 14, "small": 250, "paper": 2000}


def _reached(metric: str, condition: str = "main", level: float = 0.9) -> Event:
    return Event(Quantity(metric, condition), level, hold=2)


CLAIMS = (
    Claim(
        "learned_sooner_with_more_signal",
        "The first concept is learned at the held-out combination the sooner the stronger its signal.",
        "arXiv:2406.19370, section 4.1 and Fig. 2",
        "the step of learning falls with the concept signal",
        PowerLaw(_reached("first_right"), {f"signal {signal:g}": signal for signal in _SIGNALS}, sign=-1),
        "other concept",
    ),
    Claim(
        "stronger_concept_first",
        "At the held-out combination the concept with the stronger signal is right first.",
        "arXiv:2406.19370, section 4.2 and Fig. 3",
        "outputs first imitate the shown class that has the stronger concept, then turn",
        EventOrder(_reached("second_right"), _reached("first_right")),
        "equal signals",
    ),
    Claim(
        "signals_swap_the_order",
        "With the signals exchanged the order of the concepts is exchanged.",
        "arXiv:2406.19370, section 4.2 and Fig. 3",
        "the order follows the signals",
        EventOrder(_reached("first_right", "swapped"), _reached("second_right", "swapped")),
        "equal signals",
    ),
    Claim(
        "path_bows_to_the_stronger",
        "When the stronger concept has half of its target, the weaker one is more than a quarter of its own behind.",
        "arXiv:2406.19370, section 4.2 and Fig. 3",
        "trajectories bow towards the axis of the stronger concept: concept memorisation",
        Separation(
            Quantity("share_of_second", "main"),
            Quantity("share_of_first", "main"),
            threshold=0.25,
            unit="share of the target",
        ),
        "equal signals",
    ),
    Claim(
        "turn_with_saturation",
        "Across signals the path turns the later, the later the shown combinations are learned.",
        "arXiv:2406.19370, section 4.2 and Fig. 4",
        "the turn is where the training classes saturate",
        Relation(
            Quantity("saturation_step"), Quantity("turn_step"), tuple(f"signal {signal:g}" for signal in _SIGNALS)
        ),
        "shuffled conditions",
    ),
    *(
        Claim(
            f"{name}_before_naive",
            f"{text} elicits the held-out combination before the plain prompt shows it.",
            "arXiv:2406.19370, section 4.3 and Fig. 5",
            "elicited well before naive prompting, at nearly the same step across seeds",
            EventOrder(_reached(metric), _reached("naive")),
            _RANDOM,
        )
        for name, metric, text in (
            ("overprompt", "over_prompted", "Over-prompting"),
            ("latent", "latent", "A latent intervention"),
        )
    ),
    Claim(
        "latent_gap",
        "Over training the latent intervention gives more right outputs than the plain prompt.",
        "arXiv:2406.19370, section 4.3 and Fig. 5",
        "a gap between elicited and shown capability",
        ElicitationGap(Quantity("latent", "main"), Quantity("naive", "main"), threshold=0.05),
        _RANDOM,
    ),
    Claim(
        "underspecified_is_later",
        "With the first concept missing in most conditions the plain prompt shows the combination later.",
        "arXiv:2406.19370, section 5 and Fig. 6",
        "underspecification delays or prevents it",
        EventOrder(_reached("naive"), _reached("naive", "underspecified")),
        "complete conditions",
    ),
)
PICTURES = (
    StudyPicture(
        "Right outputs at the held-out combination: plain prompt, over-prompting, latent intervention",
        ("naive", "over_prompted", "latent"),
        ("main", "underspecified"),
    ),
    StudyPicture("Concepts right at the held-out combination", ("first_right", "second_right"), ("main", "swapped")),
    StudyPicture(
        "Outputs at the held-out combination, as a share of its attributes", ("first_share", "second_share"), ("main",)
    ),
    StudyPicture("Right outputs at the shown combinations", ("shown",), ("main", "underspecified")),
)


class Denoiser(nn.Module):
    """Predicts the noise in a point from its level and the embedding of its condition."""

    def __init__(self, width: int, conditions: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(conditions, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.level = nn.Linear(16, hidden)
        self.first = nn.Linear(width, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden)) for _ in range(2)
        )
        self.last = nn.Linear(hidden, width)

    def forward(
        self, points: Float[Tensor, "row width"], level: Float[Tensor, " row"], embedding: Float[Tensor, "row hidden"]
    ) -> Float[Tensor, "row width"]:
        rates = 2.0 ** torch.arange(8, device=level.device)
        angles = math.pi / 2 * level[:, None] * rates
        h = self.first(points) + self.level(torch.cat([angles.sin(), angles.cos()], dim=1))
        for block in self.blocks:
            h = h + block(h + embedding)
        noise: Tensor = self.last(h)
        return noise


def _kept(level: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Share of a point's variance that is not noise, at a level from 0 to 1 (cosine schedule, arXiv:2102.09672)."""
    return (math.pi / 2 * level).cos().square().clamp(1e-4, 1)


@dataclass(frozen=True)
class _Run:
    """One training: the condition and the null run of its rows, and its world."""

    conditions: tuple[str, ...]
    control: str | None
    world: concept_space.Config
    repeat: int = 0


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: seven trainings."""
    config = concept_space.Config(seed=lab.seed, points=settings.samples)
    runs = [
        _Run(("main", "signal 0.3"), None, config),
        _Run(("main", "swapped"), "equal signals", replace(config, signals=(0.45, 0.45))),
        _Run(("swapped",), None, replace(config, signals=(0.6, 0.3))),
        _Run(("underspecified",), None, replace(config, masked=0.75)),
        _Run(("underspecified",), "complete conditions", config, repeat=1),
        *(
            _Run((f"signal {signal:g}",), None, replace(config, signals=(signal, 0.6)))
            for signal in _SIGNALS
            if signal != config.signals[0]
        ),
    ]
    for i, plan in enumerate(runs):
        lab.on_activity(", ".join(plan.conditions), i, len(runs))
        path: list[tuple[float, ...]] = []
        for step, values, null in _training(settings, lab.seed, plan):
            path.append((step, values["first_share"], values["second_share"], values["shown"]))
            for condition in plan.conditions:
                yield from _rows(lab, condition, plan.control, step, values, settings.samples)
            if plan.control is None and plan.conditions[0] == "main":
                yield from _rows(lab, "main", _RANDOM, step, null, settings.samples)
                yield from _rows(lab, "main", "complete conditions", step, values, settings.samples)
            if plan.control is None and plan.conditions[-1].startswith("signal"):
                # The second concept has one signal in all these runs.
                other = {"first_right": values["second_right"]}
                yield from _rows(lab, plan.conditions[-1], "other concept", step, other, settings.samples)

        if plan.control is None and plan.conditions[-1].startswith("signal"):
            yield from _turn_rows(lab, plan.conditions[-1], np.array(path), settings.samples)
        if plan.control == "equal signals" or plan.conditions[0] == "main":
            yield from _detour_rows(lab, plan.control, np.array(path), settings.samples)


def _turn_rows(lab: Lab, condition: str, path: np.ndarray, n: int) -> Iterator[Record]:
    """Step at which the path of the outputs turns, and step at which the shown combinations are learned."""
    steps = turn_and_saturation(path[:, 0], path[:, 1:3], path[:, 3])
    reason = "the outputs do not move"
    for metric, step in steps.items():
        yield lab.row(metric, step, condition, n=n, reason=reason)
    # The null run: turns belong to the conditions in another order.
    others = list(_SIGNALS)
    np.random.default_rng([lab.seed, 5]).shuffle(others)
    other = f"signal {others[[f'signal {signal:g}' for signal in _SIGNALS].index(condition)]:g}"
    yield lab.row("turn_step", steps["turn_step"], other, control="shuffled conditions", n=n, reason=reason)
    yield lab.row(
        "saturation_step", steps["saturation_step"], condition, control="shuffled conditions", n=n, reason=reason
    )


def _detour_rows(lab: Lab, control: str | None, path: np.ndarray, n: int) -> Iterator[Record]:
    """Both concepts' shares of their targets at the step where the second one has half of its own."""
    for metric, value in zip(("share_of_first", "share_of_second"), shares_at_half(path[:, 1:3]), strict=True):
        yield lab.row(metric, value, "main", control=control, n=n)


def _rows(
    lab: Lab, condition: str, control: str | None, step: int, values: Mapping[str, float], n: int
) -> Iterator[Record]:
    for metric, value in values.items():
        yield lab.row(metric, value, condition, step=step, control=control, n=n)


def _training(settings: Settings, seed: int, plan: _Run) -> Iterator[tuple[int, dict[str, float], dict[str, float]]]:
    """At each measured step: what the prompts give, and what random moves of the same length give."""
    world = concept_space.make(plan.world)

    def batches(step: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng([seed, plan.repeat, step])
        batch = concept_space.sample(world, rng, settings.batch)
        level = rng.integers(1, settings.noise_levels + 1, settings.batch) / settings.noise_levels
        noise = rng.standard_normal(batch.targets.shape)
        return tuple(torch.from_numpy(part).float() for part in (batch.targets, batch.inputs, level, noise))

    def objective(network: nn.Module, batch: tuple[Tensor, ...], _: nn.Module | None) -> Tensor:
        points, condition, level, noise = batch
        kept = _kept(level)[:, None]
        predicted = network(kept.sqrt() * points + (1 - kept).sqrt() * noise, level, network.embed(condition))  # type: ignore[operator]
        return (predicted - noise).square().mean()

    def make() -> nn.Module:
        return Denoiser(plan.world.width, 4, settings.hidden)

    config = TrainingConfig(settings.steps, settings.rate, warmup=20, floor=1.0, weight_decay=0.01)
    # Outputs of an untrained network are anywhere, and on the right side by chance.
    steps = np.rint(np.linspace(1, settings.steps**0.5, settings.measured) ** 2).astype(int)
    marks = set(steps[steps >= settings.steps / 20].tolist())
    for session in training_sessions(TrainingRecipe(make, batches, objective, config, seed + 1000 * plan.repeat)):
        if session.step in marks:
            values, null = _measure(settings, world, session.network, seed, "main" in plan.conditions)  # type: ignore[arg-type]
            yield session.step, values, null


@torch.no_grad()
def _measure(
    settings: Settings, world: concept_space.World, network: Denoiser, seed: int, with_null: bool
) -> tuple[dict[str, float], dict[str, float]]:
    sets = concept_space.evaluation(world)
    held_out = sets["11"]
    condition = torch.from_numpy(held_out.inputs).float()
    middle = torch.from_numpy(np.stack([world.centre(of) for of in concept_space.CLASSES])).float()
    generator = torch.Generator().manual_seed(seed)
    asked = ways_of_asking(network.embed, condition, middle, generator, draws=_DIRECTIONS if with_null else 0)
    shown = [network.embed(torch.from_numpy(sets[name].inputs).float()) for name in ("00", "01", "10")]
    outputs = _generate(settings, network, [*shown, *asked.all], world.config.width, generator)
    right = [concept_space.score(world, points, held_out) for points in outputs[3:]]
    values, null = elicited_scores(asked, [of["both"] for of in right])
    share = concept_space.attributes(world, outputs[3])[:, :2].mean(0) / world.centre((1, 1))[:2]
    values |= {
        "first_right": float(right[0]["first"].mean()),
        "second_right": float(right[0]["second"].mean()),
        "first_share": float(share[0]),
        "second_share": float(share[1]),
        "shown": sum(
            float(concept_space.score(world, points, sets[name])["both"].mean()) / 3
            for name, points in zip(("00", "01", "10"), outputs, strict=False)
        ),
    }
    return values, null


def _generate(
    settings: Settings, network: Denoiser, embeddings: Sequence[Tensor], width: int, generator: torch.Generator
) -> list[np.ndarray]:
    """Points of each prompt, from the same noise, by deterministic sampling (DDIM, arXiv:2010.02502)."""
    together = torch.cat(list(embeddings))
    rows = len(embeddings[0])
    points = torch.randn(rows, width, generator=generator).repeat(len(embeddings), 1)
    levels = torch.linspace(1, 0, settings.sampling_steps + 1)
    for now, later in itertools.pairwise(levels):
        kept, next_kept = _kept(now), _kept(later)
        noise = network(points, now.expand(len(points)), together)
        clean = ((points - (1 - kept).sqrt() * noise) / kept.sqrt()).clamp(-3, 3)
        points = next_kept.sqrt() * clean + (1 - next_kept).sqrt() * noise
    return [part.double().numpy() for part in points.split(rows)]
