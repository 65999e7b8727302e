"""Settings of the rows of a weight change; `docs/records.md` explains the numbers."""

from dataclasses import dataclass

from ontogeny.data.templates import Template
from ontogeny.errors import BadInput
from ontogeny.fine_tuning.subspaces import ENERGY_SHARE
from ontogeny.steering.refusal_score import REFUSAL_PHRASES


@dataclass(frozen=True)
class WeightChangeSettings:
    template: Template = False
    """Template of the last stage's tokenizer in which all stages read the requests, so that they differ in weights only."""
    phrases: tuple[str, ...] = REFUSAL_PHRASES
    share: float = ENERGY_SHARE
    """Share of the squared singular values that a column or row space covers."""
    requests: int = 80
    """Maximum requests of each kind."""
    texts: int = 24
    """Maximum neutral texts, each of at most `tokens` tokens."""
    tokens: int = 64
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    """Multiples of ΔW that are added to the base."""
    draws: int = 100
    """Random subspaces, and random labellings, of the cheap nulls."""
    random_changes: int = 5
    """Random changes of all matrices, each of which is run."""
    probes: int = 8
    """Random projections of the Jacobian."""
    samples: int = 1000
    """Bootstrap resamples of the requests."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"requests": 4, "texts": 1, "tokens": 2, "draws": 2, "random_changes": 2, "probes": 1, "samples": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise BadInput(f"`{name}` must be at least {bound}, got {getattr(self, name)}: raise it.")
        if not 0 < self.share <= 1:
            raise BadInput(f"`share` must be above 0 and at most 1, got {self.share}: 0.9 is usual.")
        if not self.alphas:
            raise BadInput("`alphas` must not be empty: 0, 0.5, 1, 1.5 is usual.")
