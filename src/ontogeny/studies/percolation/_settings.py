"""Settings of the study, and the names of its conditions."""

from dataclasses import dataclass

from ontogeny.errors import BadInput
from ontogeny.worlds import typed_sentences

FACTORS = (1, 2, 4, 8)
"""Numbers of properties of which a preset uses some, as multiples of `properties`."""


def condition_of(factor: int) -> str:
    """Name of the condition with `factor` times the properties."""
    return f"{factor}× values"


CONDITIONS = {condition_of(factor): float(factor) for factor in FACTORS}
"""Size of each condition, relative to the smallest."""


@dataclass(frozen=True)
class Settings:
    pairs: int = 2
    """Pairs of types of entities."""
    entities: int = 10
    """Entities per type."""
    properties: int = 2
    """Properties per type in the smallest condition."""
    values: int = 10
    """Values per property."""
    shown: float = 0.2
    """Share of a property's values that occur with an entity."""
    relations: int = 4
    """Verbs per pair of types."""
    factors: tuple[int, ...] = (1, 2, 8)
    """Conditions: multiples of `properties`; some of FACTORS, with 1."""
    main: int = 2
    """Condition in which the tasks are generated, and which the null runs repeat."""
    steps: int = 320
    rate: float = 5e-3
    rows: int = 16
    """Rows of text per step."""
    longest: int = 12
    context: int = 48
    width: int = 64
    layers: int = 2
    measured: int = 36
    """Measured steps of each run."""
    sentences: int = 128
    """Sentences on which shares of probability are measured."""
    minimal_pairs: int = 64
    """Minimal pairs of each kind."""
    prompts: int = 48
    """Prompts of each task that are answered at a measured step."""
    draws: int = 20
    """Random graphs per size of the simulation."""

    def world(self, factor: int, structure: str, seed: int) -> typed_sentences.Config:
        """The world of a condition."""
        return typed_sentences.Config(
            pairs=self.pairs,
            entities=self.entities,
            properties=self.properties * factor,
            values=self.values,
            shown=self.shown,
            relations=self.relations,
            structure=structure,
            longest=self.longest,
            context=self.context,
            seed=seed,
        )


def check_settings(settings: Settings) -> None:
    """Check what no world can check.

    Raises:
        BadInput: conditions that are not comparable, or too few measured steps.
    """
    if not set(settings.factors) <= set(FACTORS) or 1 not in settings.factors or len(set(settings.factors)) < 2:
        raise BadInput(f"`factors` must be 1 and others among {FACTORS}, got {settings.factors}.")
    if settings.main not in settings.factors:
        raise BadInput(f"`main` must be one of `factors`, {settings.factors}, got {settings.main}.")
    if settings.measured < 5 or settings.measured > settings.steps:
        raise BadInput(
            f"`measured` must be at least 5 and at most `steps`, {settings.steps}, got {settings.measured}: events need a curve."
        )
    if min(settings.rows, settings.layers) < 1 or settings.width < 4 or settings.width % 4 or not settings.rate > 0:
        raise BadInput(
            "`rows` and `layers` must be at least 1, `width` a multiple of 4 and `rate` above 0, got "
            f"{settings.rows}, {settings.layers}, {settings.width} and {settings.rate}."
        )
    if min(settings.sentences, settings.minimal_pairs, settings.prompts, settings.draws) < 1:
        raise BadInput(
            "`sentences`, `minimal_pairs`, `prompts` and `draws` must be at least 1, got "
            f"{settings.sentences}, {settings.minimal_pairs}, {settings.prompts} and {settings.draws}."
        )
