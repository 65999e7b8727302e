"""Settings of the study."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    words: int = 240
    topics: int = 4
    widths: tuple[int, int] = (48, 32)
    """Of the two models of one corpus; the model of the other corpus has the first."""
    layers: int = 3
    context: int = 20
    rows: int = 16
    steps: int = 280
    rate: float = 4e-3
    measured: int = 12
    """Measured steps after step 0."""
    neighbours: int = 10
    dimension_neighbours: int = 50
    steering_rows: int = 80
    """Rows of each topic from which a vector is taken."""
    prompts: int = 60
    maps: int = 4
    """Random maps, and maps of shuffled pairs."""
    doses: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Lengths of the added vector, in lengths of the target's own."""
