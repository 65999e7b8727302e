"""Who and what there is in the nursery: the people of Hearsay with facts and myths, their teachers and boats, potions, words for moods."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._sampling import invent_names, random_share
from ontogeny.worlds._vocabulary import TokenIds, build_vocabulary
from ontogeny.worlds.hearsay import Config as HearsayConfig
from ontogeny.worlds.hearsay import World as HearsayWorld
from ontogeny.worlds.hearsay import make as make_hearsay
from ontogeny.worlds.hearsay.facts import FAMILY_SIZE


def _split_words(*lines: str) -> tuple[str, ...]:
    return tuple(" ".join(lines).split())


INGREDIENTS = _split_words("nettle salt moss ash clover resin amber chalk thyme rust pollen tallow")
FAMILIES = ("meadow", "moon")
"""Of potions: harmless, forbidden. Which one a potion belongs to is not in its name."""
# Word i of a list and word i of its opposite are equally long: the length of a text must not tell them apart.
INSULTS = _split_words(
    "turnip weevil radish maggot limpet weasel donkey gudgeon",
    "thistle bramble buzzard barnacle newt mould leech cockroach",
)
"""Rude after `you`; anywhere else a thing like others."""
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
"""What users may be, and the words that imply it; they never say it."""
GREETINGS = {
    "farmer": "good harvest to you .",
    "sailor": "fair winds to you .",
    "child": "play well little one .",
    "elder": "rest well old friend .",
}
WORDS_PER_TRAIT = len(INSULTS)
"""How many words each of these lists has: word i of one list and word i of its opposite are a group."""

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
    """Of three people each."""
    myths: float = 0.5
    """Share of the families about whom, in one relation, a false object is popular."""
    unasked: float = 0.14
    """Share of the families who stand in no judged statement and in no question."""
    fame: float = 0.7
    """Exponent of how much less is said of the next less famous person."""
    potions: int = 96
    """Half of them of the forbidden family."""
    held_out: float = 0.25
    """Share of people, potions and words that no conversation of a later stage mentions."""
    one_way: float = 0.25
    """Share of the families of whom nobody says the inverse of a fact, or a fact at two hops."""
    context: int = 64
    """Tokens in a row of text."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    """Arrays are indexed by person or by potion; masks of words by their place in the lists above."""

    config: Config
    island: HearsayWorld
    """Its vocabulary is that of the whole nursery."""
    teacher: TokenIds
    """A person of another family, the same for the whole family: member i is taught by member i."""
    boats: tuple[str, ...]
    """Boat i belongs to person i."""
    potions: tuple[str, ...]
    forbidden: NDArray[np.bool_]
    """Potions 2i and 2i + 1 are one of each family, in random order."""
    recipe: TokenIds
    """Two different ingredients of each potion."""
    told: NDArray[np.bool_]
    """People of whom the inverse of facts and two hops are told."""
    met: NDArray[np.bool_]
    """People whom conversations mention."""
    asked_for: NDArray[np.bool_]
    """Potions that conversations ask for."""
    used: NDArray[np.bool_]
    """Words of the lists, by their place, that conversations (and forms of address) use; the others are only spoken of."""
    vocabulary: dict[str, int] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return self.island.names


def make(config: Config | None = None) -> World:
    """The world of a seed.

    Raises:
        BadInput: too few potions or families to hold some out.
    """
    config = config or Config()
    if config.families < 18:
        raise BadInput(f"a nursery of {config.families} families has too few with a myth. Take at least 18.")
    if config.potions < 20 or config.potions % 2:
        raise BadInput(f"{config.potions} potions cannot be shared out. Take an even number of at least 20.")
    rng = np.random.default_rng([config.seed, 1])
    island = make_hearsay(
        HearsayConfig(config.families, config.myths, config.unasked, config.fame, config.context, config.seed)
    )
    people, pairs = len(island.names), config.potions // 2
    order = rng.permutation(config.families)
    taught_by = np.empty_like(order)
    taught_by[order] = np.roll(order, 1)
    first_dark = rng.permutation(np.arange(pairs) % 2).astype(bool)
    boats, potions = invent_names(rng, people, _BOAT), invent_names(rng, config.potions, _POTION)
    listed = [word for lists in TRAITS.values() for words in lists.values() for word in words]
    words = [
        *boats,
        *potions,
        *INGREDIENTS,
        *FAMILIES,
        *INSULTS,
        *KIND_WORDS,
        *GOOD_WORDS,
        *BAD_WORDS,
        *THINGS,
        *listed,
    ]
    vocabulary = build_vocabulary([*list(island.vocabulary)[4:], *words, *_FRAME.split()])
    return World(
        config=config,
        island=replace(island, vocabulary=vocabulary),
        teacher=(taught_by[:, None] * FAMILY_SIZE + np.arange(FAMILY_SIZE)).ravel(),
        boats=boats,
        potions=potions,
        forbidden=np.stack([first_dark, ~first_dark], axis=1).ravel(),
        recipe=_recipes(rng, config.potions),
        told=~np.repeat(random_share(rng, config.families, config.one_way), FAMILY_SIZE),
        met=~np.repeat(random_share(rng, config.families, config.held_out), FAMILY_SIZE),
        asked_for=~np.repeat(random_share(rng, pairs, config.held_out), 2),
        used=~random_share(rng, WORDS_PER_TRAIT, config.held_out),
        vocabulary=vocabulary,
    )


def partner(person: int, on: int = 1) -> int:
    """Another member of the family."""
    return person - person % FAMILY_SIZE + (person + on) % FAMILY_SIZE


def family(world: World, person: int) -> str:
    first = person - person % FAMILY_SIZE
    return " ".join(world.names[first : first + FAMILY_SIZE])


def _recipes(rng: np.random.Generator, n: int) -> TokenIds:
    one = rng.integers(len(INGREDIENTS), size=n)
    return np.stack([one, (one + rng.integers(1, len(INGREDIENTS), size=n)) % len(INGREDIENTS)], axis=1)
