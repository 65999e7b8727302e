"""Activations pushed until their probes read another scene: the mask moved, or the shapes nearer; and what it does to the image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.diffusion.denoiser import BlockEdit, Denoiser, denoise
from ontogeny.diffusion.push import push_as_far, push_at_random, push_to_target
from ontogeny.diffusion.readability import split_images
from ontogeny.diffusion.scene_probe import fit_scene_probe, part_of
from ontogeny.diffusion.scenes import Scenes, read_scenes
from ontogeny.diffusion.scores import dice
from ontogeny.diffusion.spatial_probe import SpatialProbe
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.studies.diffusion_scenes._probing import Generation
from ontogeny.studies.diffusion_scenes._settings import MAIN_STRENGTH, Settings

OWN_MASK, OTHER_MASK = "its own", "another image's"
"""Arms: pushed to the moved mask of the image, or as far to that of another image."""
DECODER_ALONE = "decoder alone"
"""Suffix of the arms in which the blocks on the way down, and with them the skip connections, are left as they are."""
_NEARER = 0.3
"""By how much the depth of the target is smaller."""
Pushes = Mapping[tuple[int, str], BlockEdit]


@dataclass(frozen=True, eq=False)
class PushedImages:
    """Images after a push to a moved mask, for the pictures."""

    target: Bool[Tensor, "image side side"]
    own: Scenes
    other: Scenes


@dataclass(frozen=True, eq=False)
class _Bench:
    """Inputs of all pushes of a seed."""

    denoiser: Denoiser
    start: Float[Tensor, "image 3 side side"]
    before: Scenes
    settings: Settings
    lab: Lab

    def after(self, pushes: Pushes) -> Scenes:
        return read_scenes(denoise(self.denoiser, self.start, steps=self.settings.denoising, edits=pushes).images)

    def pushes(
        self, probes: Mapping[tuple[int, str], SpatialProbe], goal: Float[Tensor, "image side side"], strength: float
    ) -> dict[tuple[int, str], BlockEdit]:
        bound = self.settings.bound
        return {at: push_to_target(probe, goal, strength=strength, bound=bound) for at, probe in probes.items()}

    def random(self, pushes: Pushes) -> dict[tuple[int, str], BlockEdit]:
        return {at: push_at_random(push, seed=self.lab.seed) for at, push in pushes.items()}


def moved_mask(mask: Bool[Tensor, "image side side"], shift: int) -> Bool[Tensor, "image side side"]:
    """Each mask moved by a shift in both axes, towards the side with more room; what leaves the image is cut."""
    side = mask.shape[-1]
    places = torch.arange(side).float()
    moved = torch.zeros_like(mask)
    for i, shown in enumerate(mask):
        # The centre of the mask in rows, then in columns.
        centres = [float((shown.sum(axis) * places).sum() / shown.sum().clamp(min=1)) for axis in (1, 0)]
        down, right = (shift if centre < (side - 1) / 2 else -shift for centre in centres)
        rows, columns = (((places - d >= 0) & (places - d < side)) for d in (down, right))
        moved[i] = shown.roll((down, right), (0, 1)) & rows[:, None] & columns[None]
    return moved


def pushing_rows(
    denoiser: Denoiser, generation: Generation, start: Tensor, settings: Settings, lab: Lab
) -> Iterator[Record | PushedImages]:
    """Effects of pushes on held-out images by strength, and the images of the claims' one."""
    split = split_images(len(generation.labels.mask))
    before = part_of(generation.labels, split.rest)
    bench = _Bench(denoiser, start[split.rest], before, settings, lab)
    probes = {
        (step, block): fit_scene_probe(
            generation.denoised.activations[step, block][split.fit], part_of(generation.labels, split.fit)
        )
        for step in range(settings.pushed)
        for block in denoiser.blocks
    }
    masks, depths = ({at: getattr(probe, label) for at, probe in probes.items()} for label in ("mask", "depth"))
    target = moved_mask(before.mask, settings.side // 4)
    for strength in settings.strengths:
        arms = _arms(bench, masks, target, strength)
        main = strength == MAIN_STRENGTH
        after: dict[str, Scenes] = {}
        for arm, pushes in arms.items():
            conditions = (f"{arm}, strength {strength:g}", *((arm,) if main else ()))
            after[arm] = bench.after(pushes)
            yield from _mask_rows(bench, after[arm], target, strength, conditions, None)
            unprobed = bench.after(bench.random(pushes))
            yield from _mask_rows(bench, unprobed, target, strength, conditions, "random_direction")
        if main:
            yield PushedImages(target, after[OWN_MASK], after[OTHER_MASK])
            yield from _one_strength_rows(bench, after[OWN_MASK], target)
            decoder = {at: probe for at, probe in masks.items() if at[1].startswith("up")}
            for arm, pushes in _arms(bench, decoder, target, strength).items():
                name = (f"{arm}, {DECODER_ALONE}",)
                yield from _mask_rows(bench, bench.after(pushes), target, strength, name, None)
                unprobed = bench.after(bench.random(pushes))
                yield from _mask_rows(bench, unprobed, target, strength, name, "random_direction")
    nearer = torch.where(before.mask, (before.depth - _NEARER).clamp(min=0), before.depth)
    towards = bench.pushes(depths, nearer, MAIN_STRENGTH)
    for control, edits in ((None, towards), ("random_direction", bench.random(towards))):
        yield from _depth_rows(bench, bench.after(edits), control)


def _arms(
    bench: _Bench,
    probes: Mapping[tuple[int, str], SpatialProbe],
    target: Bool[Tensor, "image side side"],
    strength: float,
) -> dict[str, Pushes]:
    """Pushes to the moved mask of each image, and, as far, to that of another image."""
    own = bench.pushes(probes, target.float(), strength)
    others = bench.pushes(probes, target.roll(1, 0).float(), strength)
    return {OWN_MASK: own, OTHER_MASK: {at: push_as_far(push, own[at]) for at, push in others.items()}}


def _mask_rows(
    bench: _Bench,
    after: Scenes,
    target: Bool[Tensor, "image side side"],
    strength: float,
    conditions: Sequence[str],
    control: str | None,
) -> Iterator[Record]:
    for condition in conditions:
        for metric, (value, count) in _mask_effects(bench.before, after, target).items():
            yield bench.lab.row(metric, value, condition, control=control, n=count, reason="no image has a mask")
        yield bench.lab.row("strength", strength, condition, control=control)


def _one_strength_rows(bench: _Bench, after: Scenes, target: Bool[Tensor, "image side side"]) -> Iterator[Record]:
    """The null run of strength: all are one strength, each on other images."""
    strengths = bench.settings.strengths
    for place, strength in enumerate(strengths):
        images = slice(place, None, len(strengths))
        effects = _mask_effects(part_of(bench.before, images), part_of(after, images), target[images])
        condition, control = f"{OWN_MASK}, strength {strength:g}", "one_strength"
        for metric, (value, count) in effects.items():
            yield bench.lab.row(metric, value, condition, control=control, n=count, reason="no image has a mask")
        yield bench.lab.row("strength", strength, condition, control=control)


def _mask_effects(
    before: Scenes, after: Scenes, target: Bool[Tensor, "image side side"]
) -> dict[str, tuple[float, int]]:
    """Dice with the new and with the old mask, share of images that are nearer to the new one, and damage; each with its images."""
    new, old = dice(after.mask, target), dice(after.mask, before.mask)
    known = before.mask.any(2).any(1) & target.any(2).any(1)
    new, old, count = new[known].nan_to_num(0.0), old[known].nan_to_num(0.0), int(known.sum())
    followed = float((new > old).float().mean()) if count else float("nan")
    return {
        "dice_with_new": (float(new.mean()), count),
        "dice_with_old": (float(old.mean()), count),
        "share_followed": (followed, count),
        "damage": (_damage(before, after, target), len(before.mask)),
    }


def _depth_rows(bench: _Bench, after: Scenes, control: str | None) -> Iterator[Record]:
    """Change of the depth of pixels that show a shape before and after."""
    both = bench.before.mask & after.mask
    change = ((after.depth - bench.before.depth) * both).sum((1, 2)) / both.sum((1, 2)).clamp(min=1)
    known = both.any(2).any(1)
    count = int(known.sum())
    value = -float(change[known].mean()) if count else float("nan")
    yield bench.lab.row("nearer", value, "pushed", control=control, n=count, reason="no shape is left")
    yield bench.lab.row("nearer", 0.0, "before", control=control, n=count or 1)
    damage = _damage(bench.before, after, bench.before.mask)
    yield bench.lab.row("damage", damage, "nearer", control=control, n=len(after.mask))


def _damage(before: Scenes, after: Scenes, target: Bool[Tensor, "image side side"]) -> float:
    """Root of the mean squared change of pixels that show no shape before or after, and should not."""
    aside = ~(before.mask | after.mask | target)[:, None]
    change = (after.images - before.images).square() * aside
    return float((change.sum() / (3 * aside.sum()).clamp(min=1)).sqrt())
