"""Plain texts: texts without labels, enough for a number such as a loss that no label enters."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class PlainText:
    text: str
    group: str


@dataclass(frozen=True)
class PlainTexts:
    """Named texts; equal ones are of one group, since resamples of their groups stand for new texts.

    Raises:
        BadInput: fewer than two different texts.
    """

    name: str
    texts: tuple[str, ...]
    kind: ClassVar[str] = "texts"

    def __post_init__(self) -> None:
        if len(set(self.texts)) < 2:
            raise BadInput(
                f"{self.name} must hold at least 2 different texts for an interval, got {len(set(self.texts))}: add texts."
            )

    @property
    def examples(self) -> Sequence[PlainText]:
        """The texts with their groups."""
        number = {text: str(i) for i, text in enumerate(dict.fromkeys(self.texts))}
        return [PlainText(text, number[text]) for text in self.texts]

    @property
    def hash(self) -> str:
        """SHA-256 of the texts."""
        return hashlib.sha256(json.dumps(["texts", *self.texts]).encode()).hexdigest()
