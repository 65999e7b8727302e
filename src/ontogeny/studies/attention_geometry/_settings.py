"""Settings of the study of the geometry of attention."""

from dataclasses import dataclass

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class Settings:
    steps: int = 360
    """Of each language model."""
    rows: int = 24
    """Texts per step."""
    rate: float = 5e-3
    width: int = 48
    layers: int = 2
    heads: int = 4
    words: int = 20
    length: int = 32
    """Tokens of a text."""
    texts: int = 40
    """Texts of which queries and keys are read; heads are chosen on one half and reported on the other."""
    measured: int = 8
    """Checkpoints, step 0 included."""
    image_steps: int = 220
    """Of the image model."""
    image_rows: int = 32
    image_width: int = 48
    side: int = 24
    """Pixels of an image's side."""
    patch: int = 4
    images: int = 40
    """Images of which queries and keys are read."""
    shuffles: int = 4
    """Shuffles of labels or positions."""

    def __post_init__(self) -> None:
        least = {
            "rows": 1,
            "layers": 1,
            "heads": 1,
            "texts": 4,
            "images": 4,
            "image_rows": 1,
            "shuffles": 1,
            "measured": 2,
        }
        for name, number in least.items():
            if getattr(self, name) < number:
                raise BadInput(f"`{name}` must be at least {number}, got {getattr(self, name)}.")
