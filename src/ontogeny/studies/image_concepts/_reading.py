"""Measurements of the denoiser at one step of its training: prompted images, read in colour and size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.studies._prompting import elicited_scores, ways_of_asking
from ontogeny.studies.image_concepts._model import ConditionalUNet, prompted_images
from ontogeny.studies.image_concepts._settings import Settings
from ontogeny.worlds import circles

STRENGTHS = (1.5, 2.0, 3.0)
"""Of over-prompts and of latent moves; the paper's colours go from 1 to 4.5 times the signal."""
DRAWS = 2
"""Unrelated moves of each kind, over which the null is averaged."""
_SHOWN = ("00", "01", "10")


@dataclass(frozen=True, eq=False)
class Reading:
    """Numbers of one measured step."""

    values: dict[str, float]
    null: dict[str, float]
    """The elicited shares of unrelated moves; `naive` is that of the values."""
    learned: tuple[float, float]
    """Colour and size of the plain prompt's images: 0 is the mean of the shown images, 1 the target."""
    images: dict[str, Float[Tensor, "image 3 side side"]]
    """By way of asking: of elicited ones those of the strength with the most right images."""


@torch.no_grad()
def read_network(settings: Settings, world: circles.World, network: ConditionalUNet, *, elicit: bool) -> Reading:
    """Measure the network.

    Args:
        elicit: Whether elicitation and its nulls are measured as well.
    """
    sets = circles.evaluation(world)
    held_out, seed = sets["11"], world.config.seed
    condition = torch.from_numpy(held_out.inputs).float()
    middle = torch.from_numpy(np.stack([world.centre(of) for of in circles.CLASSES])).float()
    asked = ways_of_asking(
        network.embed,
        condition,
        middle,
        torch.Generator().manual_seed(seed),
        draws=DRAWS if elicit else 0,
        strengths=STRENGTHS if elicit else (),
        moves=STRENGTHS if elicit else (),
    )
    shown = [network.embed(torch.from_numpy(sets[name].inputs).float()) for name in _SHOWN]
    made = prompted_images(settings, network, [*shown, *asked.all], seed=seed)
    outputs = [images.double().numpy() for images in made]
    right = [circles.score(world, images, held_out) for images in outputs[3:]]
    both = [of["both"] for of in right]
    elicited, null = elicited_scores(asked, both)
    learned = learned_shares(world, outputs[3])
    corners = [learned_shares(world, images) for images in outputs[:3]]
    targets = (np.array(circles.CLASSES[:3]) - 1 / 3) * 1.5
    values = (elicited if elicit else {"naive": elicited["naive"]}) | {
        "colour_right": float(right[0]["first"].mean()),
        "size_right": float(right[0]["second"].mean()),
        "colour_learned": learned[0],
        "size_learned": learned[1],
        "held_out_error": _error(learned, (1.0, 1.0)),
        "shown_error": float(np.mean([_error(own, target) for own, target in zip(corners, targets, strict=True)])),
        "shown": float(
            np.mean([circles.score(world, own, sets[name])["both"].mean() for own, name in zip(outputs, _SHOWN, strict=False)])
        ),
    }  # fmt: skip
    return Reading(values, null, learned, _best_images(made[3:], both) if elicit else {"plain prompt": made[3]})


def learned_shares(world: circles.World, images: np.ndarray) -> tuple[float, float]:
    """Mean colour and size of images: 0 is the mean of the shown combinations, 1 the held-out one; an image without a circle counts 0."""
    read = circles.attributes(world, images)[:, :2] / world.centre((1, 1))[:2]
    colour, size = np.nan_to_num((read + 1 / 3) * 0.75).mean(0)
    return float(colour), float(size)


def _error(learned: Sequence[float], target: Sequence[float]) -> float:
    """Half the squared distance in concept space."""
    return float(((np.array(learned) - np.array(target)) ** 2).sum() / 2)


def _best_images(made: Sequence[Tensor], both: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """The plain prompt's images, and those of the best over-prompt and of the best latent intervention."""
    count = len(STRENGTHS)
    best = {"plain prompt": made[0]}
    for name, first in (("over-prompt", 1), ("latent move", 1 + count)):
        best[name] = made[first + int(np.argmax([of.mean() for of in both[first : first + count]]))]
    return best
