"""Settings of a sparse autoencoder, and the budget of its training."""

import math
from dataclasses import dataclass
from typing import Literal

from ontogeny.errors import BadInput, unknown_name

SAE_ACTIVATIONS = ("relu", "topk", "jumprelu", "sparsemax")
_INPUT_SCALES = ("none", "mean", "token")
_PENALTIES = {"relu": 0.1, "topk": 0.0, "jumprelu": 1e-3, "sparsemax": 0.0}
"""Weight of the sparsity penalty by activation, if none is given."""
TOKENS_PER_LATENT = 4
"""Fewest tokens of training text for each latent."""


@dataclass(frozen=True)
class SaeSettings:
    """One sparse autoencoder."""

    activation: str = "topk"
    """`relu` with an L1 penalty (arXiv:2309.08600), `topk` (arXiv:2406.04093), `jumprelu` with an L0 penalty (arXiv:2407.14435), or
    `sparsemax` ("KDS", arXiv:2012.02134)."""
    latents: int = 256
    k: int = 16
    """Most latents of a token that fire, for topk."""
    penalty: float | None = None
    """Weight of the sparsity penalty; None for the default of the activation."""
    input_scale: Literal["none", "mean", "token"] = "mean"
    """`mean`: one factor for all tokens, so that their mean squared length is d; `token`: every token has length √d."""
    unit_decoder: bool = True
    """Whether each latent's direction has length 1."""
    centre_input: bool = True
    """Whether the decoder bias is subtracted from the input."""
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("activation", self.activation, SAE_ACTIVATIONS),
            ("input scale", self.input_scale, _INPUT_SCALES),
        ):
            if value not in known:
                raise unknown_name(name, value, known)
        if self.latents < 2:
            raise BadInput(f"`latents` must be at least 2, got {self.latents}: choose a multiple of the width.")
        if self.activation == "topk" and not 1 <= self.k <= self.latents:
            raise BadInput(
                f"`k` must be from 1 to the number of latents, {self.latents}, got {self.k}: choose a smaller one."
            )
        if self.penalty is not None and not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise BadInput(f"`penalty` must be a finite number from 0 on, got {self.penalty}: leave it out.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise BadInput(f"`learning_rate` must be above 0 and finite, got {self.learning_rate}: choose 0.003.")

    @property
    def penalty_weight(self) -> float:
        """Weight of the sparsity penalty."""
        return _PENALTIES[self.activation] if self.penalty is None else self.penalty


@dataclass(frozen=True)
class SaeBudget:
    """Training steps that all autoencoders of a pass share."""

    steps: int = 1000
    batch: int = 512
    """Tokens per step."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    decay: float = 0.2
    """Share of the steps at the end in which it falls to 0."""
    seed: int = 0
    """Of the order of the tokens."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"`{name}` must be at least 1, got {getattr(self, name)}: choose a larger number.")
        if not (min(self.warmup, self.decay) >= 0 and self.warmup + self.decay <= 1):
            raise BadInput(
                f"`warmup` and `decay` must be shares with a sum of at most 1, got {self.warmup} and {self.decay}: use 0.05 and 0.2."
            )

    def rate_factor(self, step: int) -> float:
        """Factor of the learning rate at a step, from 1 on."""
        up = step / max(self.warmup * self.steps, 1)
        down = (self.steps - step + 1) / max(self.decay * self.steps, 1)
        return min(1.0, up, down)


def check_width(latents: int, tokens: int) -> None:
    """Raise BadInput if there are more latents than the tokens can train."""
    if latents * TOKENS_PER_LATENT > tokens:
        raise BadInput(
            f"`latents` must be at most {tokens // TOKENS_PER_LATENT} for {tokens:,} tokens of text ({TOKENS_PER_LATENT} tokens a "
            f"latent), got {latents}: give more texts, or choose fewer latents."
        )
