"""Settings of the refusal study; `docs/records.md` explains the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ontogeny.data.templates import Template, parse_template
from ontogeny.errors import BadInput
from ontogeny.steering.refusal_effects import RefusalEffectSettings
from ontogeny.steering.refusal_score import REFUSAL_PHRASES
from ontogeny.steering.token_selection import TokenSelection


@dataclass(frozen=True)
class RefusalSettings:
    template: Template = False
    """Template in which instructions are asked: own, that of each stage where it has one, or one for all stages."""
    templates: Mapping[str, Template] = field(default_factory=dict)
    """Own templates of single stages; by default the tokenizer's chat template, if it has one."""
    separator: str = " "
    """Text between an instruction and an answer, where no chat template writes it."""
    phrases: Sequence[str] = REFUSAL_PHRASES
    """First words of refusals."""
    strength: float = 1.0
    """Norm of an added vector, as a multiple of the distance between the means of the steered stage."""
    where: TokenSelection = "all"
    """Tokens that a vector is added to."""
    positions: int = 5
    """Maximum number of tokens at the end that are tried, as far as all instructions share them."""
    depth: float = 0.8
    """Share of the blocks after which a direction is looked for: the last blocks hold the answer itself."""
    max_kl: float = 0.1
    """Filter of the method (arXiv:2406.11717): ablation from harmless instructions may change the next token by this much, nats."""
    min_induced: float = 0.0
    """Filter of the method: the log-odds of refusing harmless instructions that the added vector must exceed."""
    limits: tuple[int, int, int] = (128, 32, 100)
    """Maximum instructions of each kind: for the direction, for the choice of layer and position, and for the test."""
    tokens: int = 16
    """Tokens generated for the phrases; 0 skips them."""
    crossed: int = 6
    """With more stages than this, only the own, the first and the last stage's vectors are generated with."""
    nulls: int = 20
    """Random directions, each with its opposite."""
    phrase_nulls: int = 3
    """Random directions for the phrases, which cost a generation each."""
    samples: int = 1000
    """Bootstrap resamples."""
    seed: int = 0

    @property
    def effects(self) -> RefusalEffectSettings:
        """Settings of the effects on each stage."""
        return RefusalEffectSettings(self.where, self.tokens, self.nulls, self.phrase_nulls, self.seed)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", parse_template(self.template))
        object.__setattr__(self, "templates", {name: parse_template(one) for name, one in self.templates.items()})
        if (
            min(self.nulls, self.samples, self.positions) < 1
            or not 0 < self.depth <= 1
            or self.strength <= 0
            or min(self.limits) < 2
        ):
            raise BadInput(
                f"nulls, samples and positions must be at least 1, limits at least 2, depth in (0, 1] and strength > 0, got {self}: "
                "correct them."
            )
