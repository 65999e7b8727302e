"""Settings of the study of elicitation."""

from dataclasses import dataclass

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class ElicitationSettings:
    shots: int = 4
    """Worked examples before a question, of other groups; fewer where the context is too short."""
    questions: int = 200
    draws: int = 100
    """Shufflings of right and wrong, the null of what is readable."""
    strengths: tuple[float, ...] = (1.0, 3.0)
    """Multiples of a steering vector that are tried."""
    steering_draws: int = 2
    """Sets of random vectors as long, each chosen from like the true ones; 0 leaves steering out."""
    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"shots": 1, "questions": 4, "draws": 2, "steering_draws": 0, "samples": 2}.items():
            if getattr(self, name) < least:
                raise BadInput(f"`{name}` must be at least {least}, got {getattr(self, name)}: raise it.")
        if not self.strengths or not all(0 < strength < float("inf") for strength in self.strengths):
            raise BadInput(f"`strengths` must be numbers above 0, got {self.strengths}: (1, 3) is usual.")
