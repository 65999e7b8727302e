"""Settings and units of a lens job."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.resumable import WeightIdentity
from ontogeny.lenses import LENS_KINDS
from ontogeny.lenses.fitting import TUNED_STEPS
from ontogeny.storage.files import content_digest

_LENS_VERSION = 1
_FEWEST_TEXTS = 4


@dataclass(frozen=True)
class LensSettings:
    """Settings of a lens job; each field enters the names of its units."""

    lenses: tuple[str, ...] = ("logit", "tuned")
    most_tokens: int = 64
    """Tokens that are read of each text, from its beginning."""
    most_texts: int = 64
    """Texts that are read, evenly spaced over those that are given."""
    tuned_steps: int = TUNED_STEPS
    """Steps of the fit of each layer's tuned lens."""
    jacobian_texts: int = 16
    """Texts of each half that the Jacobian lens is averaged over; each takes as many backward passes as the model is wide."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.lenses:
            if name not in LENS_KINDS:
                raise unknown_name("lens", name, LENS_KINDS)
        if not self.lenses:
            raise BadInput(f"`lenses` must name at least one of {', '.join(LENS_KINDS)}, got none: choose logit.")
        for name, least in (
            ("most_tokens", 3),
            ("most_texts", _FEWEST_TEXTS),
            ("tuned_steps", 0),
            ("jacobian_texts", 1),
        ):
            if getattr(self, name) < least:
                raise BadInput(f"`{name}` must be at least {least}, got {getattr(self, name)}: choose a larger number.")


def chosen_texts(texts: Sequence[str], settings: LensSettings) -> tuple[str, ...]:
    """The texts that are read: different ones, evenly spaced.

    Raises:
        BadInput: there are fewer than four different texts.
    """
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) < _FEWEST_TEXTS:
        raise BadInput(f"`texts` must hold at least {_FEWEST_TEXTS} different texts, got {len(different)}: give more.")
    count = min(len(different), settings.most_texts)
    return tuple(different[round(i * (len(different) - 1) / (count - 1))] for i in range(count))


def lens_unit(identity: WeightIdentity, texts: Sequence[str], settings: LensSettings, place: Any) -> str:
    """Name of the unit of a checkpoint."""
    key = [_LENS_VERSION, "lens", identity.whole, list(texts), asdict(settings), place]
    return "lens-" + content_digest(key)
