"""Requests of the chat panel: a conversation, and a turn of the steering bench. Needs no torch."""

from dataclasses import dataclass

from ontogeny.errors import BadInput
from ontogeny.gauges.pin import Pin, check_pin

_MOST_LETTERS, _MOST_TOKENS, _MOST_GAUGES, _MOST_PINS = 8000, 256, 24, 8


@dataclass(frozen=True)
class ChatRequest:
    """A conversation at one checkpoint."""

    turns: tuple[str, ...]
    """The user's."""
    stage: str
    step: str
    gauges: tuple[str, ...] = ()
    """Concepts that are read."""
    pins: tuple[Pin, ...] = ()
    tokens: int = 40
    """Maximum number of new tokens of an answer."""
    temperature: float = 0.0
    seed: int = 0
    other_stage: str = ""
    other_step: str = ""
    """With the stage a checkpoint B, at which the answers of this one are scored."""

    def check(self) -> None:
        """Raise BadInput for what no conversation can have."""
        if not self.turns:
            raise BadInput("`turns` must hold at least one turn of the user, got none: write something.")
        if (letters := sum(map(len, self.turns))) > _MOST_LETTERS:
            raise BadInput(f"`turns` must have at most {_MOST_LETTERS:,} letters, got {letters:,}: shorten them.")
        if not 1 <= self.tokens <= _MOST_TOKENS:
            raise BadInput(f"`tokens` must be from 1 to {_MOST_TOKENS}, got {self.tokens}: change it.")
        if not -(2**62) < self.seed < 2**62:
            raise BadInput(f"`seed` must have at most 18 digits, got {self.seed}: choose a smaller one.")
        for name, most in (("gauges", _MOST_GAUGES), ("pins", _MOST_PINS)):
            if len(getattr(self, name)) > most:
                raise BadInput(f"`{name}` must be at most {most}, got {len(getattr(self, name))}: remove some.")
        for pin in self.pins:
            check_pin(pin)


@dataclass(frozen=True)
class BenchRequest:
    """A turn, and how it is pushed."""

    text: str
    stage: str
    step: str
    concept: str
    towards: int = 1
    site: str = ""
    """"" for `control_site`."""
    gaps: tuple[float, ...] = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
    """Lengths of the push, in distances of the class means."""
    tokens: int = 40
