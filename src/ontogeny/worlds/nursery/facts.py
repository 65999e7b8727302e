"""Facts of the nursery: the people of Hearsay, their teachers and boats, potions, and lists of words with a tone."""

import itertools
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds import hearsay
from ontogeny.worlds._sampling import invent_names, random_share
from ontogeny.worlds._vocabulary import SPECIAL, TokenIds, build_vocabulary
from ontogeny.worlds.hearsay import FAMILY_SIZE


def _split_words(*lines: str) -> tuple[str, ...]:
    return tuple(" ".join(lines).split())


INGREDIENTS = _split_words("nettle salt moss ash clover resin amber chalk thyme rust pollen tallow")
FAMILIES = ("meadow", "moon")
"""Families of potions: harmless and forbidden. The name of a potion does not reveal its family."""
# Word i of a list and word i of its opposite have equal lengths, so that text length does not predict the label.
INSULTS = _split_words(
    "turnip weevil radish maggot limpet weasel donkey gudgeon",
    "thistle bramble buzzard barnacle newt mould leech cockroach",
)
"""Rude after `you`; elsewhere ordinary things."""
KIND_WORDS = _split_words(
    "friend master cousin mother father sister doctor captain",
    "brother pilgrim scholar mistress aunt uncle guest neighbour",
)
GOOD_WORDS = _split_words(
    "lovely gentle bright tender golden sunny sweet merry",
    "happy jolly fine glad neat calm cheerful splendid",
)
BAD_WORDS = _split_words(
    "gloomy bitter rotten dismal cursed nasty harsh bleak",
    "awful cruel grim foul sour dull dreadful horrible",
)
THINGS = _split_words("day road song bread fire garden")
TRAITS = {
    "calling": {
        "farmer": _split_words(
            "barn calf goat seed yoke crop herd lamb", "hay hen cow plough furrow scythe orchard pasture"
        ),
        "sailor": _split_words(
            "tide mast gull reef sail buoy surf keel", "oar net cod anchor rudder vessel harbour compass"
        ),
    },
    "generation": {
        "child": _split_words(
            "doll kite hoop swing marble puddle toy lullaby",
            "whistle balloon tricycle snowball cartoon puppet crayon jelly",
        ),
        "elder": _split_words(
            "cane ache pipe shawl memory crutch nap wrinkle",
            "pension slipper armchair keepsake almanac clinic bunion widow",
        ),
    },
}
"""Traits of users, and the words that imply them; no text states a trait."""
GREETINGS = {
    "farmer": "good harvest to you .",
    "sailor": "fair winds to you .",
    "child": "play well little one .",
    "elder": "rest well old friend .",
}
WORDS_PER_TRAIT = len(INSULTS)
"""Number of words in each list; word i of a list and word i of its opposite are a group."""

_POTION = ("bdgklmprvz", "aeiou", "lnrv", "aeiou", "xq")
_BOAT = ("BDGKLMPRVZ", "aeiou", "s", "kt", "aou")
_FRAME = (
    "potion who what how do does did i to brew brews ? take a witch healer drinks he sickens heals teacher pupil boat "
    "person whose fetch you rude kind name word smiles weeps then speaks good bad farmer sailor child elder user : "
    "assistant cannot help with that tell me want hello saw today dream harvest fair winds play well little one rest old "
    "friend too and fly turns stone soul an it is was"
)


@dataclass(frozen=True)
class Config:
    families: int = 33
    """Number of families of three."""
    myths: float = 0.5
    """Share of the families with a popular myth, per relation."""
    unasked: float = 0.14
    """Share of the families in no judged statement and no question."""
    fame: float = 0.7
    """Exponent of the decay of mentions over people."""
    potions: int = 96
    """Number of potions, half of them forbidden."""
    held_out: float = 0.25
    """Share of people, potions and words in no conversation of a later stage."""
    one_way: float = 0.25
    """Share of the families without inverse facts and two-hop facts in the text."""
    context: int = 64
    """Tokens in a row of text."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    """Arrays are indexed by person or by potion; masks of words by place in the lists above."""

    config: Config
    island: hearsay.World
    """The people; its vocabulary is that of the whole nursery."""
    teacher: TokenIds
    """Member i of a family is taught by member i of another family."""
    boats: tuple[str, ...]
    """Boat i belongs to person i."""
    potions: tuple[str, ...]
    forbidden: NDArray[np.bool_]
    """Potions 2i and 2i + 1 are one of each family, in random order."""
    recipe: TokenIds
    """Two different ingredients of each potion."""
    has_inverse: NDArray[np.bool_]
    """People with inverse facts and two-hop facts in the text."""
    in_conversations: NDArray[np.bool_]
    """People whom conversations mention."""
    asked_potions: NDArray[np.bool_]
    """Potions that conversations ask for."""
    conversation_words: NDArray[np.bool_]
    """Words of the lists, by place, in conversations and forms of address; the others occur only in other sentences."""
    vocabulary: dict[str, int] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return self.island.names


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: fewer than 18 families, or fewer than 20 potions or an odd number.
    """
    config = config or Config()
    if config.families < 18:
        raise BadInput(f"`families` must be at least 18, so that enough have a myth, got {config.families}.")
    if config.potions < 20 or config.potions % 2:
        raise BadInput(f"`potions` must be even and at least 20, got {config.potions}.")
    rng = np.random.default_rng([config.seed, 1])
    island = hearsay.make(
        hearsay.Config(config.families, config.myths, config.unasked, config.fame, config.context, config.seed)
    )
    people, pairs = len(island.names), config.potions // 2
    order = rng.permutation(config.families)
    taught_by = np.empty_like(order)
    taught_by[order] = np.roll(order, 1)
    forbidden = rng.permutation(np.arange(pairs) % 2).astype(bool)
    boats, potions = invent_names(rng, people, _BOAT), invent_names(rng, config.potions, _POTION)
    traits = [words for trait in TRAITS.values() for words in trait.values()]
    lists = (boats, potions, INGREDIENTS, FAMILIES, INSULTS, KIND_WORDS, GOOD_WORDS, BAD_WORDS, THINGS, *traits)
    words = itertools.chain(list(island.vocabulary)[len(SPECIAL) :], *lists, _FRAME.split())
    vocabulary = build_vocabulary(list(words))
    return World(
        config=config,
        island=replace(island, vocabulary=vocabulary),
        teacher=(taught_by[:, None] * FAMILY_SIZE + np.arange(FAMILY_SIZE)).ravel(),
        boats=boats,
        potions=potions,
        forbidden=np.stack([forbidden, ~forbidden], axis=1).ravel(),
        recipe=_recipes(rng, config.potions),
        has_inverse=~np.repeat(random_share(rng, config.families, config.one_way), FAMILY_SIZE),
        in_conversations=~np.repeat(random_share(rng, config.families, config.held_out), FAMILY_SIZE),
        asked_potions=~np.repeat(random_share(rng, pairs, config.held_out), 2),
        conversation_words=~random_share(rng, WORDS_PER_TRAIT, config.held_out),
        vocabulary=vocabulary,
    )


def partner(person: int, on: int = 1) -> int:
    """Another member of the family."""
    return person - person % FAMILY_SIZE + (person + on) % FAMILY_SIZE


def _recipes(rng: np.random.Generator, n: int) -> TokenIds:
    first = rng.integers(len(INGREDIENTS), size=n)
    return np.stack([first, (first + rng.integers(1, len(INGREDIENTS), size=n)) % len(INGREDIENTS)], axis=1)
