"""The study's denoiser: a small UNet of diffusers whose time embedding takes an embedding of the attributes, and its training."""

import copy
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.diffusion.denoiser import Denoiser, denoise, start_noise
from ontogeny.diffusion.pipeline import import_diffusers
from ontogeny.studies.image_concepts._settings import Settings
from ontogeny.training.in_memory import training_sessions
from ontogeny.training.loop import TrainingConfig, TrainingRecipe
from ontogeny.worlds import circles

_SCHEDULE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class ConditionalUNet(nn.Module):
    """A UNet, and the embedding of the attributes that is added to that of the noise level in each block."""

    def __init__(self, diffusers: Any, settings: Settings) -> None:
        super().__init__()
        width = 4 * settings.channels[0]
        self.embed = nn.Sequential(_Scale(settings.scale), nn.Linear(4, width), nn.GELU(), nn.Linear(width, width))
        levels = len(settings.channels)
        self.unet = diffusers.UNet2DModel(
            sample_size=settings.side,
            in_channels=3,
            out_channels=3,
            layers_per_block=1,
            block_out_channels=settings.channels,
            down_block_types=("DownBlock2D",) * levels,
            mid_block_type=None,
            up_block_types=("UpBlock2D",) * levels,
            norm_num_groups=8,
            class_embed_type="identity",
        )


def trained_networks(
    settings: Settings, world: circles.World, *, repeat: int = 0
) -> Iterator[tuple[int, ConditionalUNet]]:
    """The network at each measured step, with the running mean of its weights; it is one object, so measure it before the next one.

    Args:
        repeat: Distinguishes independent trainings in one world.
    """
    diffusers = import_diffusers()
    noising = diffusers.DDPMScheduler(num_train_timesteps=settings.noise_steps, **_SCHEDULE)
    seed = world.config.seed

    def batches(step: int) -> tuple[Tensor, Tensor]:
        drawn = circles.sample(world, np.random.default_rng([seed, repeat, step]), settings.batch)
        return torch.from_numpy(drawn.targets).float(), torch.from_numpy(drawn.inputs).float()

    def objective(network: nn.Module, batch: tuple[Tensor, Tensor], _: nn.Module | None) -> Tensor:
        images, condition = batch
        noise = torch.randn_like(images)
        times = torch.randint(settings.noise_steps, (len(images),))
        noisy = noising.add_noise(images, noise, times)
        predicted = network.unet(noisy, times, class_labels=network.embed(condition)).sample  # type: ignore[operator]
        return (predicted - noising.get_velocity(images, noise, times)).square().mean()

    config = TrainingConfig(settings.steps, settings.rate, warmup=min(20, settings.steps), floor=1.0, weight_decay=0.01)
    # Outputs of an untrained network are anywhere, and on the right side by chance.
    steps = np.rint(np.linspace(1, settings.steps**0.5, settings.measured) ** 2).astype(int)
    marks = set(steps[steps >= settings.steps / 20].tolist())
    recipe = TrainingRecipe(
        lambda: ConditionalUNet(diffusers, settings), batches, objective, config, seed + 1000 * repeat
    )
    averaged: ConditionalUNet | None = None
    for session in training_sessions(recipe):
        own = [parameter.detach() for parameter in session.network.parameters()]
        if averaged is None:
            averaged = cast(ConditionalUNet, copy.deepcopy(session.network).requires_grad_(False).eval())
        # Early on the mean is over few steps, so that first weights do not stay in it.
        share = 1 - min(settings.averaging, (1 + session.step) / (10 + session.step))
        torch._foreach_lerp_(list(averaged.parameters()), own, share)
        if session.step in marks:
            yield session.step, averaged


def prompted_images(
    settings: Settings, network: ConditionalUNet, prompts: list[Float[Tensor, "image width"]], *, seed: int
) -> list[Float[Tensor, "image 3 side side"]]:
    """Images of each prompt, an embedding of attributes, all from the same noise, by DDIM (arXiv:2010.02502)."""
    scheduler = import_diffusers().DDIMScheduler(
        num_train_timesteps=settings.noise_steps, clip_sample=False, timestep_spacing="trailing", **_SCHEDULE
    )
    model = Denoiser(network.unet, scheduler, {"class_labels": torch.cat(prompts)})
    rows = len(prompts[0])
    start = start_noise(model, rows, seed=seed).repeat(len(prompts), 1, 1, 1)
    return list(denoise(model, start, steps=settings.denoising).images.split(rows))
