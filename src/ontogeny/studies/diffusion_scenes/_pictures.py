"""Pictures of some held-out images: on their way from noise, the mask and depth that are read early, and the image after the pushes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ontogeny.diffusion.pictures import picture_url
from ontogeny.diffusion.readability import read_held_out, split_images
from ontogeny.diffusion.scene_probe import part_of
from ontogeny.diffusion.scenes import read_scenes
from ontogeny.diffusion.scores import dice
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.studies.diffusion_scenes._probing import Generation
from ontogeny.studies.diffusion_scenes._pushing import PushedImages
from ontogeny.studies.diffusion_scenes._settings import Settings


def picture_rows(
    generation: Generation, pushed: PushedImages, settings: Settings, lab: Lab, step: int
) -> Iterator[Record]:
    """One row a picture: `coords.picture` is a PNG, the value is Dice of its mask with that of the image, or with the new one."""
    made, early = generation.denoised, settings.early
    split = split_images(len(generation.labels.mask))
    shown = part_of(generation.labels, split.rest)
    reading = read_held_out(made.activations[early, settings.block], generation.labels, split)
    noisy = sorted({0, early, settings.denoising // 2, settings.denoising - 2})
    same = torch.ones(len(shown.mask))
    strip: list[tuple[str, Tensor, Tensor]] = [
        (
            f"input, step {at}",
            made.inputs[at][split.rest],
            dice(read_scenes(made.inputs[at][split.rest]).mask, shown.mask),
        )
        for at in noisy
    ]
    strip += [
        ("image", shown.images, same),
        ("mask", shown.mask, same),
        (f"mask read, step {early}", reading.mask, dice(reading.mask, shown.mask)),
        ("depth", shown.depth, same),
        (f"depth read, step {early}", reading.depth, dice(reading.mask, shown.mask)),
        ("new mask", pushed.target, same),
        ("pushed to it", pushed.own.images, dice(pushed.own.mask, pushed.target)),
        ("pushed to another", pushed.other.images, dice(pushed.other.mask, pushed.target)),
    ]
    usable = (shown.mask.any(2).any(1) & pushed.target.any(2).any(1)).nonzero()[: settings.pictures, 0].tolist()
    for number, image in enumerate(usable, 1):
        for place, (name, pictures, values) in enumerate(strip):
            yield lab.row(
                "picture",
                float(values[image].nan_to_num(0.0)),
                name,
                step=step,
                image=number,
                place=place,
                name=name,
                picture=picture_url(pictures[image].float()),
            )
