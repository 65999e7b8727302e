"""Diffusion models: activations by block and denoising step, probes per place, edits, and scenes of known depth (arXiv:2306.05720)."""

from ontogeny.diffusion.denoiser import Denoised, Denoiser, block_activations, denoise, start_noise
from ontogeny.diffusion.pictures import picture_url
from ontogeny.diffusion.pipeline import decode_images, import_diffusers, open_denoiser
from ontogeny.diffusion.push import push_as_far, push_at_random, push_to_target
from ontogeny.diffusion.readability import read_held_out, readability_records, split_images
from ontogeny.diffusion.scene_probe import SceneProbe, SceneReading, fit_scene_probe
from ontogeny.diffusion.scenes import Scenes, make_scenes, read_scenes
from ontogeny.diffusion.scores import best_threshold, depth_error, dice, pixel_rank_correlation
from ontogeny.diffusion.spatial_probe import SpatialProbe, fit_place_mean, fit_spatial_probe

__all__ = [
    "Denoised",
    "Denoiser",
    "SceneProbe",
    "SceneReading",
    "Scenes",
    "SpatialProbe",
    "best_threshold",
    "block_activations",
    "decode_images",
    "denoise",
    "depth_error",
    "dice",
    "fit_place_mean",
    "fit_scene_probe",
    "fit_spatial_probe",
    "import_diffusers",
    "make_scenes",
    "open_denoiser",
    "picture_url",
    "pixel_rank_correlation",
    "push_as_far",
    "push_at_random",
    "push_to_target",
    "read_held_out",
    "read_scenes",
    "readability_records",
    "split_images",
    "start_noise",
]
