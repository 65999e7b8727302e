"""Settings of the study of the geometry of attention."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    steps: int = 600
    """Of the language model."""
    rows: int = 32
    """Texts per step."""
    rate: float = 5e-3
    width: int = 64
    layers: int = 2
    heads: int = 4
    words: int = 24
    length: int = 40
    """Tokens of a text."""
    texts: int = 48
    """Texts of which queries and keys are read; heads are chosen on one half and reported on the other."""
    measured: int = 9
    """Checkpoints, step 0 included."""
    image_steps: int = 400
    """Of the image model."""
    image_rows: int = 32
    image_width: int = 48
    side: int = 24
    """Pixels of an image's side."""
    patch: int = 4
    images: int = 48
    """Images of which queries and keys are read."""
    shuffles: int = 5
    """Shuffles of labels or positions."""
