"""Settings of the study of abrupt learning."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    length: int = 8
    modulus: int = 11
    width: int = 64
    steps: int = 240
    rate: float = 5e-4
    batch: int = 64
    every: int = 10
    """Steps between measurements."""
    boost: float = 5.0
    """Factor of the attention scores at the right sources."""
    matrix: int = 3
    """Rows and columns of the matrices."""
    matrix_rank: int = 1
    matrix_factors: str = "signs"
    """Distribution of the factors, see `ontogeny.worlds.low_rank`."""
    matrix_decimals: int = 2
    matrix_largest: float = 1.0
    matrix_missing: float = 0.2
    matrix_steps: int = 1000
    matrix_rate: float = 3e-3
    matrix_batch: int = 128
    matrix_width: int = 64
    matrix_layers: int = 2
    matrix_spread: float = 0.06
    """Standard deviation of the initial weights."""
    matrix_warmup: int = 50
    matrix_beta: float = 0.98
    """Decay of the squared gradients."""
    part_steps: int = 120
    """Steps in which one part of the encoder is trained alone."""
