"""Settings of the study of the user model."""

from dataclasses import dataclass

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class Settings:
    steps: int = 400
    """Of training."""
    rows: int = 8
    """Rows of text per step."""
    width: int = 64
    layers: int = 4
    checkpoints: int = 5
    """At which reading and control are measured, step 0 included."""
    dialogues: int = 240
    """Labelled dialogues of each attribute: to fit, to choose and to test."""
    turns: int = 5
    """The user's turns in the dialogues that are read turn by turn."""
    questions: int = 24
    """Held-out dialogues whose answers are steered."""
    doses: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Lengths of a push, in distances of the class means; the last one is compared across vectors and checkpoints."""
    random: int = 4
    """Sets of random directions of equal norm, half of them the null run of the other half."""
    tokens: int = 8
    """New tokens of an answer."""
    context: int = 108
    chats: str = ""
    """Folder of labelled dialogues, or of such folders, one for each attribute; "" for the generated ones."""
    vocabulary: int = 1200
    """Tokens of the tokenizer that is trained on a folder of dialogues."""

    def __post_init__(self) -> None:
        least = {"rows": 1, "layers": 2, "checkpoints": 2, "turns": 1, "questions": 5, "random": 2, "tokens": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise BadInput(f"`{name}` must be at least {number}, got {getattr(self, name)}.")
        if not self.doses:
            raise BadInput("`doses` must not be empty: give the length of a push.")
