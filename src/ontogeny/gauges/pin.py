"""Pin: a wish to push or hold one attribute of a conversation. Needs no torch."""

from dataclasses import dataclass

from ontogeny.errors import BadInput

MOST_GAPS = 20.0


@dataclass(frozen=True)
class Pin:
    """A wish about one attribute, from one of the user's turns on."""

    concept: str
    towards: int
    """The class, from 0."""
    gaps: float = 1.0
    """How far each token is pushed, in distances of the class means; ignored where it is held."""
    hold: bool = False
    """Whether the projection is held at the mean of the class."""
    site: str = ""
    """Where it acts; "" for `control_site`."""
    since: int = 0
    """The user's turn, from 0, whose answer is the first that is steered."""


def check_pin(pin: Pin) -> None:
    """Raise BadInput if a push is not a number, or is longer than 20 gaps."""
    if not -MOST_GAPS <= pin.gaps <= MOST_GAPS:
        raise BadInput(f"`gaps` must be a number from {-MOST_GAPS:g} to {MOST_GAPS:g}, got {pin.gaps}: push less.")
    if pin.since < 0:
        raise BadInput(f"`since` must be a turn, from 0, got {pin.since}: change it.")
