"""Study: does a diffusion model know mask and depth of an image before it can be seen, and does it follow when these are changed?

Scene representations inside a diffusion model (arXiv:2306.05720), on painted scenes whose labels are exact. Needs the extra `diffusion`.
"""

from collections.abc import Iterator, Mapping

from ontogeny.diffusion.denoiser import block_activations, denoise, start_noise
from ontogeny.diffusion.readability import PIXELS, PLACE
from ontogeny.diffusion.scenes import make_scenes, read_scenes
from ontogeny.jobs.study.paper_study import Lab, StudyPicture
from ontogeny.records import Record
from ontogeny.studies.diffusion_scenes._claims import CLAIMS, STRENGTHS
from ontogeny.studies.diffusion_scenes._model import train_denoisers, untrained_denoiser
from ontogeny.studies.diffusion_scenes._pictures import picture_rows
from ontogeny.studies.diffusion_scenes._probing import (
    DECODER,
    EARLY,
    LATE,
    Generation,
    block_rows,
    denoising_rows,
    early_rows,
    training_rows,
)
from ontogeny.studies.diffusion_scenes._pushing import OTHER_MASK, OWN_MASK, PushedImages, pushing_rows
from ontogeny.studies.diffusion_scenes._settings import Settings

__all__ = ["CLAIMS", "PICTURES", "PRESETS", "SECONDS", "Settings", "run"]

TITLE = "Scenes inside a diffusion model"
PAPER = "Beyond Surface Statistics: Scene Representations in a Latent Diffusion Model, arXiv:2306.05720"
SETUP = """
A small UNet of diffusers learns scenes of one to three shapes in which nearer ones are larger and brighter. It then generates images from
noise, in ten steps of DDIM. Mask and depth of each final image are read by a rule, and predicted from the activations of each block at each
step, linearly and per place, on images that the probes were not fitted on. The same noisy images are read by the UNet at other steps of its
training. Activations of the first steps are then pushed until the probes read a moved mask, or nearer shapes. An image follows a push if
its mask overlaps more with the new mask than with its own.
"""
DIFFERENCES = (
    "A pixel model of 16 × 16 scenes; the paper reads Stable Diffusion, which ontogeny.diffusion opens as well.",
    "Labels come from a rule that is exact on painted scenes; the paper's come from other networks.",
    "Probes are least squares, with the threshold of a mask chosen on the images of the fit; the paper takes steps of Adam.",
    "Pushes are closed forms along the probe's pattern, of bounded length, at the outputs of all blocks, and of the decoder's alone; the "
    "paper takes 128 steps of Adam at the self-attentions of the decoder.",
    "Pixels are read with their neighbourhood of 5 × 5, and untrained networks, places, other images' masks and random directions of equal "
    "length stand beside.",
)
CHALLENGES = (2, 11)
PACKAGES = {"diffusers": "diffusion"}

PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        side=8,
        scenes=64,
        channels=(8, 8, 16),
        steps=8,
        batch=8,
        checkpoints=(0.0, 1.0),
        denoising=3,
        generated=24,
        pushed=1,
        strengths=(0.5, 1.0),
        pictures=2,
    ),
    "tiny": Settings(),
    "small": Settings(side=32, scenes=4000, channels=(32, 64, 64), steps=6000, rate=1e-3, batch=64, generated=900),
    "paper": Settings(
        side=64, scenes=50_000, channels=(128, 256, 256), steps=100_000, rate=2e-4, batch=128, denoising=15, generated=3000
    ),
}  # fmt: skip
SECONDS = {"smoke": 3, "tiny": 130, "small": 9000, "paper": 2_000_000}

PICTURES = (
    StudyPicture(
        "Readability of mask and depth, by block and denoising step",
        ("mask_dice", "depth_rank", "depth_error", "mask_dice_gain", "depth_rank_gain", "depth_error_gain"),
        view="denoising",
    ),
    StudyPicture("Scenes, what is read of them, and what becomes of them", ("picture",), view="scenes"),
    StudyPicture(
        "Dice of the final image's mask over denoising steps, from the decoder, from pixels and from the place",
        ("mask_dice_by_denoising",),
        (DECODER, PIXELS, PLACE),
        x_title="denoising step",
    ),
    StudyPicture(
        "Mask and depth in the decoder over training, at the second and at the last denoising step",
        ("mask_dice_over_training", "depth_rank_over_training"),
        (EARLY, LATE),
    ),
    StudyPicture(
        "Images that follow their new mask, by damage to the rest of the image, for pushes of four strengths",
        ("damage", "share_followed"),
        (*STRENGTHS, *(name.replace(OWN_MASK, OTHER_MASK) for name in STRENGTHS)),
        points=True,
    ),
)


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed: probes at each checkpoint, block and denoising step, and pushes of the last checkpoint."""
    lab.on_activity("training", 0, 4)
    models = train_denoisers(settings, lab.seed)
    last = max(models)
    model = models[last]
    start = start_noise(model, settings.generated, seed=1000 + lab.seed)
    lab.on_activity("denoising", 1, 4)
    made = denoise(model, start, steps=settings.denoising, read=model.blocks)
    untrained = models[0], untrained_denoiser(settings, lab.seed)
    raw, other = (block_activations(network, made.inputs, model.blocks) for network in untrained)
    generation = Generation(made, read_scenes(made.images), raw, other)
    painted = make_scenes(settings.generated, side=settings.side, seed=lab.seed)
    for name, mask in (("generated", generation.labels.mask), ("painted", painted.mask)):
        yield lab.row("mask_share", float(mask.float().mean()), name, n=len(mask))
    lab.on_activity("probing", 2, 4)
    for step, checkpoint in models.items():
        final = step == last
        activations = made.activations if final else block_activations(checkpoint, made.inputs, model.blocks)
        yield from block_rows(activations, generation, lab, step, last=final)
        yield from training_rows(activations, generation, settings, lab, step)
    yield from early_rows(generation, settings, lab)
    yield from denoising_rows(generation, settings, lab)
    lab.on_activity("pushing", 3, 4)
    for result in pushing_rows(model, generation, start, settings, lab):
        if isinstance(result, PushedImages):
            yield from picture_rows(generation, result, settings, lab, last)
        else:
            yield result
