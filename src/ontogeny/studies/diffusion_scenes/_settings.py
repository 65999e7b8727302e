"""Settings of the study."""

from dataclasses import dataclass

from ontogeny.errors import BadInput, unknown_name

LEVELS = 3
"""Of the UNet; each halves the image."""
MAIN_STRENGTH = 1.0
"""Strength of the pushes of the claims: the probes read the target."""
_BLOCKS = (*(f"down.{i}" for i in range(LEVELS)), "mid", *(f"up.{i}" for i in range(LEVELS)))
_GROUPS = 8
"""Of the normalisation, and channels of an attention head."""


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
    """Multiples of the push after which the probe reads the target; the claims are about 1."""
    bound: float = 1.0
    """Largest length of a push, as a share of the activation's."""
    pictures: int = 3
    """Held-out images whose pictures are stored."""

    def __post_init__(self) -> None:
        if self.block not in _BLOCKS:
            raise unknown_name("block", self.block, _BLOCKS)
        cells = 2 ** (LEVELS - 1)
        checks = (
            ("side", self.side, self.side >= 8 and self.side % cells == 0, f"a multiple of {cells} from 8 on"),
            (
                "channels",
                self.channels,
                len(self.channels) == LEVELS and all(c > 0 and c % _GROUPS == 0 for c in self.channels),
                f"{LEVELS} multiples of {_GROUPS}",
            ),
            ("steps", self.steps, self.steps >= 1, "at least 1"),
            ("denoising", self.denoising, 3 <= self.denoising <= self.noise_steps, "from 3 to `noise_steps`"),
            ("early", self.early, 0 <= self.early < self.denoising, "a step below `denoising`"),
            ("pushed", self.pushed, 1 <= self.pushed <= self.denoising, "from 1 to `denoising`"),
            ("generated", self.generated, self.generated >= 12, "at least 12"),
            (
                "strengths",
                self.strengths,
                MAIN_STRENGTH in self.strengths and min(self.strengths) > 0,
                f"above 0, and {MAIN_STRENGTH:g} among them",
            ),
            (
                "checkpoints",
                self.checkpoints,
                1.0 in self.checkpoints and 0 <= min(self.checkpoints) <= max(self.checkpoints) <= 1,
                "shares from 0 to 1, and 1 among them",
            ),
            ("bound", self.bound, self.bound > 0, "above 0"),
        )
        for name, value, fits, rule in checks:
            if not fits:
                raise BadInput(f"`{name}` must be {rule}, got {value}: change the setting.")
