"""The study's denoiser: a small UNet of diffusers that learns painted scenes, and the same UNet at some steps of its training."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.diffusion.denoiser import Denoiser
from ontogeny.diffusion.pipeline import import_diffusers
from ontogeny.diffusion.scenes import make_scenes
from ontogeny.studies.diffusion_scenes._settings import Settings
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe

_SCHEDULE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def train_denoisers(settings: Settings, seed: int) -> dict[int, Denoiser]:
    """The model at step 0 and at the measured steps, by step."""
    diffusers = import_diffusers()
    scenes = make_scenes(settings.scenes, side=settings.side, seed=seed).images
    noising = diffusers.DDPMScheduler(num_train_timesteps=settings.noise_steps, **_SCHEDULE)

    def make() -> nn.Module:
        return make_unet(diffusers, settings)

    def batches(step: int) -> Tensor:
        return scenes[np.random.default_rng([seed, 1, step]).integers(len(scenes), size=settings.batch)]

    def objective(network: nn.Module, images: Tensor, _: nn.Module | None) -> Tensor:
        noise = torch.randn_like(images)
        times = torch.randint(settings.noise_steps, (len(images),))
        predicted = network(noising.add_noise(images, noise, times), times).sample
        return (predicted - noising.get_velocity(images, noise, times)).square().mean()

    config = TrainingConfig(settings.steps, settings.rate, warmup=min(50, settings.steps // 4), weight_decay=0.0)
    marks = {0, *(round(share * settings.steps) for share in settings.checkpoints)}
    models: dict[int, Denoiser] = {}
    for session in training_sessions(TrainingRecipe(make, batches, objective, config, seed)):
        if session.step in marks:
            models[session.step] = Denoiser(copy.deepcopy(session.network).eval(), _sampler(diffusers, settings))
    return models


def make_unet(diffusers: Any, settings: Settings) -> nn.Module:
    """A UNet with its first weights: three levels, self-attention at the coarsest."""
    network: nn.Module = diffusers.UNet2DModel(
        sample_size=settings.side,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=settings.channels,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )
    return network


def untrained_denoiser(settings: Settings, seed: int) -> Denoiser:
    """The same UNet with other first weights."""
    diffusers = import_diffusers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5000 + seed)
        return Denoiser(make_unet(diffusers, settings).eval(), _sampler(diffusers, settings))


def _sampler(diffusers: Any, settings: Settings) -> Any:
    """DDIM, whose images are a function of their noise."""
    return diffusers.DDIMScheduler(num_train_timesteps=settings.noise_steps, clip_sample=True, **_SCHEDULE)
