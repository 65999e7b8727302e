"""Diffusion models: activations by block and denoising step, probes per place, edits, and scenes of known depth (arXiv:2306.05720)."""

from ontogeny.diffusion.denoiser import Denoised, Denoiser, block_activations, denoise, open_denoiser
from ontogeny.diffusion.push import push_at_random, push_to_target
from ontogeny.diffusion.scenes import Scenes, make_scenes, read_scenes
from ontogeny.diffusion.scores import best_threshold, depth_error, dice, pixel_rank_correlation
from ontogeny.diffusion.spatial_probe import SpatialProbe, fit_place_mean, fit_spatial_probe

__all__ = [
    "Denoised",
    "Denoiser",
    "Scenes",
    "SpatialProbe",
    "best_threshold",
    "block_activations",
    "denoise",
    "depth_error",
    "dice",
    "fit_place_mean",
    "fit_spatial_probe",
    "make_scenes",
    "open_denoiser",
    "pixel_rank_correlation",
    "push_at_random",
    "push_to_target",
    "read_scenes",
]
