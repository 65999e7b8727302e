"""Study: in which order does an image model learn colour and size, as the linear theory says, and can it combine them before it shows it?

Emergence of Hidden Capabilities (arXiv:2406.19370) on small images of one circle, and the diffusion check of swing-by dynamics
(arXiv:2410.08309), whose theory is held against the path of the denoiser's outputs. Needs the extra `diffusion`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ontogeny.diffusion.pictures import picture_url
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.studies._prompting import shares_at_half, turn_and_saturation, turn_index
from ontogeny.studies.image_concepts._claims import (
    CLAIMS,
    COMPLETE,
    CONDITIONS,
    EQUAL_SIGNALS,
    MIRRORED,
    OTHER,
    PICTURES,
    RANDOM,
    SHOWN,
    SHUFFLED,
)
from ontogeny.studies.image_concepts._model import trained_networks
from ontogeny.studies.image_concepts._reading import Reading, read_network
from ontogeny.studies.image_concepts._settings import EQUAL, SIGNALS, SIZE, STRONG, WEAK, Settings
from ontogeny.studies.image_concepts._theory import Prediction, bow, distance_to_path, predict, step_of
from ontogeny.worlds import circles

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "Settings", "run"]

TITLE = "Colour and size in a diffusion model"
PAPER = "Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space, arXiv:2406.19370"
SETUP = """
A small conditional UNet of diffusers learns images of one circle, big red, small red and big blue ones, conditioned on colour, size and
place. Small blue ones are held out. Along training they are prompted plainly, with conditions further out (over-prompting) and with the
embedding of the condition moved along both concepts (latent intervention); colour and size are read from each image by a formula. The
signal of colour, the distance of its classes, varies around that of size. Beside the path of the outputs in concept space stands that of
the two-layer linear theory of arXiv:2410.08309, computed from the second moment of the images with nothing fitted. Measured steps count
from the one on at which half of the images of shown combinations are right; before it there are no circles yet.
"""
DIFFERENCES = (
    "Images of 8 × 8 pixels on white and a UNet of .1 M weights; the papers take 32 × 32 pixels, any background and a larger one.",
    "Colour goes from red to blue at constant green; both concepts have a jitter of a quarter of half their signal.",
    "Colour and size are read by a formula that is exact up to the edge of the circle; the papers train a classifier, which saturates.",
    "Learned with a gradient clip of 1; the paper's clip of .01 makes every step as long.",
    "Ten steps of DDIM; the paper takes 50 to 100 of a variational model.",
    "The strength of an elicitation is chosen on other images than those it is reported on.",
    "The theory is compared in numbers, with the second moment that the held-out combination leaves; the paper compares it in words.",
)
CHALLENGES = (2, 3)
PACKAGES = {"diffusers": "diffusion"}
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(channels=(8,), side=6, steps=6, batch=4, denoising=2, images=4, measured=4, pictures=2),
    "tiny": Settings(),
    "small": Settings(side=16, channels=(16, 32, 64), steps=4000, rate=2e-3, batch=64, images=64, measured=50, denoising=20),
    "paper": Settings(
        side=32, channels=(64, 128, 256), steps=20_000, rate=1e-3, batch=128, noise_steps=1000, images=128, measured=200, denoising=50
    ),
}  # fmt: skip
SECONDS = {"smoke": 2, "tiny": 90, "small": 5000, "paper": 2_000_000}


_FORMED = 0.5


@dataclass(frozen=True)
class _Training:
    """A training: the conditions and the null run under which its rows stand, and its world."""

    conditions: tuple[str, ...]
    control: str | None
    world: circles.Config
    repeat: int = 0

    @property
    def elicits(self) -> bool:
        """Whether its capabilities are elicited, with nulls."""
        return self.control is None and self.conditions[0] in ("main", "underspecified")


def _trainings(settings: Settings, seed: int) -> list[_Training]:
    config = circles.Config(side=settings.side, images=settings.images, seed=seed)
    weak = replace(config, signals=(WEAK, SIZE))
    names = {WEAK: ("main",), STRONG: ("swapped",)}
    return [
        *(
            _Training((*names.get(signal, ()), f"signal {signal:g}"), None, replace(config, signals=(signal, SIZE)))
            for signal in SIGNALS
        ),
        _Training(("underspecified",), None, replace(weak, masked=0.75)),
        _Training(("underspecified",), COMPLETE, weak, repeat=1),
    ]


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: six trainings, and the theory beside four of them."""
    trainings = _trainings(settings, lab.seed)
    for i, training in enumerate(trainings):
        lab.on_activity(", ".join(training.conditions), i, len(trainings))
        world = circles.make(training.world)
        measured = [
            (step, read_network(settings, world, network, elicit=training.elicits))
            for step, network in trained_networks(settings, world, repeat=training.repeat)
        ]
        yield from _training_rows(settings, lab, training, world, _formed(measured))


def _formed(measured: Sequence[tuple[int, Reading]]) -> Sequence[tuple[int, Reading]]:
    """The steps from which on half of the images of shown combinations are right, chance being a quarter; all if they never are.

    Before that outputs are no circles yet, and their colours and sizes are anywhere.
    """
    first = next((i for i, (_, reading) in enumerate(measured) if reading.values["shown"] >= _FORMED), 0)
    return measured[first:]


def _training_rows(
    settings: Settings, lab: Lab, training: _Training, world: circles.World, measured: Sequence[tuple[int, Reading]]
) -> Iterator[Record]:
    """Rows of one training: of each step, and of the path if its signals are part of the sweep."""
    for step, reading in measured:
        yield from _step_rows(settings, lab, training, step, reading)
    if training.control is None and training.conditions[-1] in CONDITIONS:
        yield from _path_rows(settings, lab, training, world, measured)


def _step_rows(settings: Settings, lab: Lab, training: _Training, step: int, reading: Reading) -> Iterator[Record]:
    """Rows of one measured step, under all conditions and null runs of the training."""
    n, values = settings.images, reading.values
    for condition in training.conditions:
        for metric, value in values.items():
            yield lab.row(metric, value, condition, step=step, control=training.control, n=n)
    first, own = training.conditions[0], training.control is None
    if training.elicits:
        for metric, value in reading.null.items():
            yield lab.row(metric, value, first, step=step, control=RANDOM, n=n)
    if own and first in ("main", "swapped"):
        yield lab.row("held_out_error", values["shown_error"], first, step=step, control=SHOWN, n=n)
    if own and first == "main":
        yield lab.row("naive", values["naive"], "main", step=step, control=COMPLETE, n=n)
        if lab.seed == 0:
            yield from _picture_rows(settings, lab, step, reading)
    if own and training.conditions[-1] == f"signal {EQUAL:g}":
        for condition in ("main", "swapped"):
            for metric in ("colour_right", "size_right"):
                yield lab.row(metric, values[metric], condition, step=step, control=EQUAL_SIGNALS, n=n)
    if own and training.conditions[-1] in CONDITIONS:
        # The signal of size is the same in all these trainings.
        yield lab.row("colour_right", values["size_right"], training.conditions[-1], step=step, control=OTHER, n=n)


def _picture_rows(settings: Settings, lab: Lab, step: int, reading: Reading) -> Iterator[Record]:
    """Pictures of the first prompts: the value is 1, `coords.picture` a PNG."""
    for name, images in reading.images.items():
        for number, image in enumerate(images[: settings.pictures], 1):
            picture = picture_url(image.clamp(-1, 1))
            yield lab.row("generated_image", 1.0, "main", step=step, image=number, name=name, picture=picture)


def _path_rows(
    settings: Settings, lab: Lab, training: _Training, world: circles.World, at: Sequence[tuple[int, Reading]]
) -> Iterator[Record]:
    """The path of the outputs in concept space, beside that of the theory."""
    condition, n = training.conditions[-1], settings.images
    steps, readings = [step for step, _ in at], [reading for _, reading in at]
    path = np.array([reading.learned for reading in readings])
    shown = np.array([reading.values["shown"] for reading in readings])
    theory = predict(world)
    measured = turn_and_saturation(steps, path, shown) | {
        "measured_order": _order(np.array(steps, dtype=float), path),
        "measured_bow": bow(path),
    }
    turn = turn_index(theory.path)
    predicted = {
        "predicted_order": _order(theory.steps, theory.path),
        "predicted_bow": bow(theory.path),
        "predicted_turn": math.nan if turn is None else float(theory.steps[turn]),
    }
    for metric, value in (measured | predicted).items():
        yield lab.row(metric, value, condition, n=n, reason="the path does not move")
    # The null run: what is measured belongs to the signals in another order.
    order = np.random.default_rng([lab.seed, 5]).permutation(len(SIGNALS))
    other = CONDITIONS[int(order[CONDITIONS.index(condition)])]
    for metric, value in measured.items():
        where = condition if metric == "saturation_step" else other
        yield lab.row(metric, value, where, control=SHUFFLED, n=n, reason="the path does not move")
    for metric, value in predicted.items():
        yield lab.row(metric, value, condition, control=SHUFFLED, n=n, reason="the path does not move")
    for concept, own, of_theory in zip(("colour", "size"), path.T, theory.path.T, strict=True):
        for step, value in zip(steps, own, strict=True):
            yield lab.row(f"path_{concept}", value, condition, step=step, n=n)
        for at_step, value in zip(theory.steps[::10], of_theory[::10], strict=True):
            yield lab.row(f"path_{concept}", value, condition, step=int(at_step), control="linear theory", n=n)
    yield from _detour_rows(lab, training, path, theory, n)


def _detour_rows(lab: Lab, training: _Training, path: np.ndarray, theory: Prediction, n: int) -> Iterator[Record]:
    """How far the path is from the theory's, from the straight one, and how far colour is behind when size has half of its target."""
    condition = training.conditions[0]
    control = EQUAL_SIGNALS if training.conditions[-1] == f"signal {EQUAL:g}" else None
    if condition != "main" and control is None:
        return
    for metric, value in zip(("share_of_colour", "share_of_size"), shares_at_half(path), strict=True):
        yield lab.row(metric, value, "main", control=control, n=n)
    if control is not None:
        return
    straight = np.linspace(0, 1, 101)[:, None].repeat(2, 1)
    for null, of_theory in ((None, theory.path), (MIRRORED, theory.path[:, ::-1])):
        yield lab.row("distance_to_theory", distance_to_path(path, of_theory), "main", control=null, n=n)
        yield lab.row("distance_to_straight", distance_to_path(path, straight), "main", control=null, n=n)


def _order(steps: np.ndarray, path: np.ndarray) -> float:
    """Doublings of the step from half of colour's target to half of size's; what is not reached counts as the last step."""
    colour, size = (step_of(steps, curve, 0.5) for curve in path.T)
    return math.log2(size + 1) - math.log2(colour + 1)
