"""A small ViT on painted scenes: it names hue and place of the nearest shape; queries and keys of every head before and after training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from ontogeny.activations.attention_vectors import AttentionVectors, batch_attention_vectors
from ontogeny.activations.patch_labels import HUES, patch_labels
from ontogeny.diffusion.scenes import Scenes, make_scenes
from ontogeny.errors import BadInput
from ontogeny.models.model import model_from_network
from ontogeny.models.vision import NoTokenizer
from ontogeny.studies.attention_geometry._settings import Settings
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe

_POOL = 3000
"""Scenes to learn from."""
_CELLS = 3
"""Rows and columns of places that are named."""
_COLOURS = len(HUES) - 1


@dataclass(frozen=True, eq=False)
class ReadImages:
    """Queries and keys of some images at a checkpoint, with labels of their patches."""

    step: int
    vectors: list[AttentionVectors]
    labels: dict[str, Int[Tensor, "image patch"]]
    accuracy: float
    """Share of the images whose nearest shape has the named hue and place."""

    def half(self, part: int) -> "ReadImages":
        """Every other image."""
        labels = {name: values[part::2] for name, values in self.labels.items()}
        return ReadImages(self.step, self.vectors[part::2], labels, self.accuracy)


def read_images_while_training(settings: Settings, seed: int) -> Iterator[ReadImages]:
    """The images before training and after it."""
    scenes = make_scenes(_POOL, side=settings.side, seed=seed)
    targets = _nearest(scenes)
    held_out = make_scenes(settings.images, side=settings.side, seed=seed + 100_003)
    shown, wanted = held_out.images, _nearest(held_out)
    labels = patch_labels(shown, settings.patch)
    if settings.image_width % settings.heads:
        raise BadInput(f"`image_width` must be a multiple of `heads`, {settings.heads}, got {settings.image_width}.")
    config = ViTConfig(
        image_size=settings.side,
        patch_size=settings.patch,
        hidden_size=settings.image_width,
        intermediate_size=4 * settings.image_width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_labels=_COLOURS + _CELLS**2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    def batches(step: int) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(np.random.default_rng([seed, 31, step]).integers(_POOL, size=settings.image_rows))
        return scenes.images[rows], targets[rows]

    def objective(network: nn.Module, batch: tuple[Tensor, Tensor], _: nn.Module | None) -> Tensor:
        logits = network(pixel_values=batch[0]).logits.split([_COLOURS, _CELLS**2], 1)
        losses = [nn.functional.cross_entropy(one, batch[1][:, i]) for i, one in enumerate(logits)]
        return losses[0] + losses[1]

    training = TrainingConfig(settings.image_steps, 2e-3, warmup=min(50, settings.image_steps), weight_decay=0.01)
    recipe = TrainingRecipe(lambda: ViTForImageClassification(config), batches, objective, training, seed)
    for session in training_sessions(recipe):
        if session.step in (0, settings.image_steps):
            model = model_from_network(session.network.eval(), NoTokenizer("vit"))
            with torch.no_grad():
                logits = session.network(pixel_values=shown).logits.split([_COLOURS, _CELLS**2], 1)
            guess = torch.stack([one.argmax(1) for one in logits], 1)
            right = float((guess == wanted).all(1).double().mean())
            yield ReadImages(session.step, batch_attention_vectors(model, shown), labels, right)
            session.network.train()


def _nearest(scenes: Scenes) -> Int[Tensor, "image 2"]:
    """Hue of the nearest shape, from 0, and the cell of its middle."""
    count, side = len(scenes.images), scenes.images.shape[-1]
    nearest = scenes.depth == scenes.depth.amin((1, 2), keepdim=True)
    hue = patch_labels(torch.where(nearest[:, None], scenes.images, 0.0), side)["hue"][:, 0] - 1
    line = torch.arange(side).double()
    size = nearest.sum((1, 2))
    cell = [((nearest.sum(axis) * line).sum(1) / size * _CELLS / side).long().clamp(max=_CELLS - 1) for axis in (2, 1)]
    assert len(hue) == count
    return torch.stack([hue, cell[0] * _CELLS + cell[1]], 1)
