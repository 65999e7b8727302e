"""Settings of the study."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    side: int = 16
    scenes: int = 2000
    """Painted scenes that the model learns."""
    channels: tuple[int, ...] = (16, 32, 32)
    """Of the three levels of the UNet."""
    noise_steps: int = 200
    steps: int = 2000
    rate: float = 3e-3
    batch: int = 32
    checkpoints: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    """Shares of the training after which the model is measured."""
    denoising: int = 10
    """Denoising steps of an image."""
    early: int = 1
    """Denoising step, from 0, at which the claims on early steps are tested."""
    block: str = "up.1"
    """Block of the claims, fixed before measuring: the middle of the decoder."""
    generated: int = 240
    """Images that are generated to be probed; the last third is scored and pushed."""
    pushed: int = 5
    """First denoising steps at which activations are pushed."""
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Multiples of the push after which the probe reads the target; the claims are about 1, which is one of them."""
    bound: float = 1.0
    """Largest length of a push, as a share of the activation's."""
    pictures: int = 3
    """Held-out images whose pictures are stored."""
