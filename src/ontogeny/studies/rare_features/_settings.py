"""Settings of the study of rare features."""

from dataclasses import dataclass

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class Settings:
    ratios: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    """Frequency of one chain relative to each of the others, and of the rare features of the autoencoders."""
    chains: int = 3
    states: int = 4
    length: int = 16
    """Tokens of a sequence."""
    first: int = 4
    """Position from which activations are read."""
    width: int = 4
    layers: int = 4
    heads: int = 2
    hidden: int = 16
    """Hidden units of an MLP."""
    steps: int = 4000
    rate: float = 3e-3
    batch: int = 64
    features: int = 12
    """Features of the autoencoders, a quarter of which is rare."""
    units: int = 4
    """Hidden units of the autoencoders."""
    on: float = 0.1
    """Probability of a frequent feature."""
    toy_steps: int = 1500
    draws: int = 200
    """Sets of random directions of the baseline."""


def check_settings(settings: Settings) -> None:
    """Check the settings before anything is trained.

    Raises:
        BadInput: settings under which a claim cannot be measured.
    """
    s = settings
    if len(s.ratios) < 3 or list(s.ratios) != sorted(set(s.ratios)) or s.ratios[0] <= 0 or s.ratios[-1] != 1:
        raise BadInput(f"`ratios` must be at least three ascending ones above 0, the last one 1, got {s.ratios}.")
    if s.chains < 2 or not 2 <= s.states <= 6:
        raise BadInput(f"`chains` must be at least 2 and `states` from 2 to 6, got {s.chains} and {s.states}.")
    if not 1 <= s.first < s.length - s.states:
        raise BadInput(f"`first` must leave more than {s.states} positions of `length`, got {s.first} of {s.length}.")
    if s.width < 2 or s.heads < 1 or s.width % s.heads or min(s.layers, s.hidden) < 1:
        raise BadInput(
            f"`width` must be at least 2 and a multiple of `heads`, and `layers` and `hidden` at least 1, got {s.width}, {s.heads}, "
            f"{s.layers} and {s.hidden}."
        )
    if not 1 <= s.units < s.features or s.features < 4 or not 0 < s.on <= 1:
        raise BadInput(
            f"`features` must be at least 4, `units` between 1 and `features` - 1 and `on` above 0 and at most 1, got {s.features}, "
            f"{s.units} and {s.on}."
        )
    if min(s.steps, s.batch, s.toy_steps) < 1 or s.draws < 2 or s.rate <= 0:
        raise BadInput(
            f"`steps`, `batch` and `toy_steps` must be at least 1, `draws` at least 2 and `rate` above 0, got {s.steps}, {s.batch}, "
            f"{s.toy_steps}, {s.draws} and {s.rate:g}: raise the smallest."
        )
