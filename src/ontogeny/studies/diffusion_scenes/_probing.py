"""Mask and depth of the final image, read from each block at each denoising step of each checkpoint, beside controls and null runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.diffusion.denoiser import Denoised
from ontogeny.diffusion.readability import (
    PIXELS,
    PLACE,
    UNTRAINED,
    read_held_out,
    readability_records,
    split_images,
)
from ontogeny.diffusion.scene_probe import SCORES, part_of, patches, read_by_place
from ontogeny.diffusion.scenes import Scenes
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.studies.diffusion_scenes._settings import Settings

DECODER = "decoder"
"""Condition of the block of the claims."""
EARLY, LATE = "early step", "last step"


@dataclass(frozen=True, eq=False)
class Generation:
    """Images of the trained model, with their labels and with activations of two untrained networks on the same noisy images."""

    denoised: Denoised
    labels: Scenes
    untrained: Mapping[tuple[int, str], Tensor]
    other_untrained: Mapping[tuple[int, str], Tensor]

    @property
    def shuffled(self) -> Scenes:
        """The labels of other images."""
        order = torch.randperm(len(self.labels.mask), generator=torch.Generator().manual_seed(7))
        return Scenes(*(part[order] for part in (self.labels.images, self.labels.depth, self.labels.mask)))


def block_rows(
    activations: Mapping[tuple[int, str], Tensor], generation: Generation, lab: Lab, step: int, *, last: bool
) -> Iterator[Record]:
    """Scores of every block at every denoising step of a checkpoint, on the noisy images of the trained model."""
    made = replace(generation.denoised, activations=activations)
    untrained = generation.untrained if last else None
    for record in readability_records(made, generation.labels, untrained=untrained):
        block = record.coords["block"]
        yield replace(record, lineage=lab.study, stage=block, step=step, train_seed=lab.seed)


def training_rows(
    activations: Mapping[tuple[int, str], Tensor], generation: Generation, settings: Settings, lab: Lab, step: int
) -> Iterator[Record]:
    """Mask and depth of the decoder at an early and at the last denoising step of a checkpoint; halves of the images as the null run."""
    labels = generation.labels
    split = split_images(len(labels.mask))
    shown = part_of(labels, split.rest)
    for name, at in ((EARLY, settings.early), (LATE, settings.denoising - 1)):
        scores = read_held_out(activations[at, settings.block], labels, split).scores(shown)
        for metric in SCORES:
            yield lab.row(f"{metric}_over_training", _mean(scores[metric]), name, step=step, n=len(shown.mask))
        if name == EARLY:
            halves = [_mean(scores["mask_dice"][half::2]) for half in (0, 1)]
            for metric, condition, value in (
                ("mask_dice", EARLY, halves[0]),
                ("mask_dice", LATE, halves[1]),
                ("depth_rank", EARLY, halves[1]),
            ):
                yield lab.row(
                    f"{metric}_over_training", value, condition, step=step, control="same_curve", n=len(shown.mask) // 2
                )


def early_rows(generation: Generation, settings: Settings, lab: Lab) -> Iterator[Record]:
    """Scores at the early step, of the decoder and its controls, in the trained model and in the null runs."""
    made, early = generation.denoised, settings.early
    block, seen = (early, settings.block), patches(made.inputs[early])
    raw, other = generation.untrained[block], generation.other_untrained[block]
    runs = (
        (None, made.activations[block], raw, generation.labels),
        ("untrained", raw, other, generation.labels),
        ("shuffled_labels", made.activations[block], raw, generation.shuffled),
    )
    for control, x, beside, labels in runs:
        for name, source in ((DECODER, x), (PIXELS, seen), (UNTRAINED, beside), (PLACE, None)):
            for metric, value in _scores(source, labels).items():
                yield lab.row(f"early_{metric}", value, name, control=control, n=len(labels.mask) // 3)


def denoising_rows(generation: Generation, settings: Settings, lab: Lab) -> Iterator[Record]:
    """Scores over denoising steps, which are the column `step`, and how much Dice is gained in either half of them."""
    made, labels = generation.denoised, generation.labels
    place = _scores(None, labels)
    for control, activations in ((None, made.activations), ("untrained", generation.untrained)):
        curve = []
        for at, pixels in enumerate(made.inputs):
            sources = {
                DECODER: _scores(activations[at, settings.block], labels),
                PIXELS: _scores(patches(pixels), labels),
            }
            curve.append(sources[DECODER]["mask_dice"])
            for name, scores in (sources | {PLACE: place}).items():
                for metric, value in scores.items():
                    yield lab.row(
                        f"{metric}_by_denoising", value, name, step=at, control=control, n=len(labels.mask) // 3
                    )
        middle = settings.denoising // 2
        yield lab.row("dice_gain", curve[middle] - curve[0], "first half", control=control)
        yield lab.row("dice_gain", curve[-1] - curve[middle], "second half", control=control)


def _scores(x: Float[Tensor, "image channel row column"] | None, labels: Scenes) -> dict[str, float]:
    """Mean scores of held-out images; None: of the mean of each place."""
    split = split_images(len(labels.mask))
    shown = part_of(labels, split.rest)
    reading = (
        read_by_place(part_of(labels, split.fit), len(shown.mask)) if x is None else read_held_out(x, labels, split)
    )
    return {metric: _mean(values) for metric, values in reading.scores(shown).items()}


def _mean(values: Float[Tensor, " image"]) -> float:
    return float(values.nanmean())
