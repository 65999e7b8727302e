"""Hearsay: an island with a book that states facts and people who repeat myths. Truth must be recalled; the words do not reveal it.

Language models come to represent truth if later text depends on it (arXiv:2510.15804): here a judgement (`right`, `myth`, `wrong`) follows
a bare statement. Six concepts: truth, myth, region, age, courtesy, register.
"""

from typing import Literal

from transformers import PreTrainedTokenizerFast

from ontogeny.errors import BadInput
from ontogeny.worlds import _vocabulary
from ontogeny.worlds.hearsay.concepts import concepts, facts
from ontogeny.worlds.hearsay.facts import FAMILY_SIZE, JUDGEMENTS, REGIONS, RELATIONS, Config, World, family, make
from ontogeny.worlds.hearsay.sentences import BOOK, SENTENCE_KINDS, sample

__all__ = [
    "BOOK", "FAMILY_SIZE", "JUDGEMENTS", "REGIONS", "RELATIONS", "SENTENCE_KINDS", "Config", "World", "concepts",
    "facts", "family", "judge", "make", "register", "sample", "tokenizer",
]  # fmt: skip


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def judge(world: World, statement: str) -> Literal["right", "myth", "wrong"]:
    """The oracle: whether a statement in any register is true, a popular myth or wrong.

    Raises:
        BadInput: the text is not a statement `… the RELATION of PERSON is OBJECT .`.
    """
    words = statement.removesuffix(".").split()
    for relation, (name, objects) in enumerate(RELATIONS.items()):
        match words[-5:]:
            case [word, "of", person, "is", thing] if word == name and person in world.names and thing in objects:
                index, claim = world.names.index(person), objects.index(thing)
                if claim == world.truth[index, relation]:
                    return "right"
                return "myth" if claim == world.myth[index, relation] else "wrong"
    raise BadInput(f"a statement must read like 'the trade of {world.names[0]} is baker .', got {statement!r}.")


def register(statement: str) -> Literal["book", "hearsay", "bare"]:
    """The speaker of a statement: the book, the people, or nobody."""
    if statement.startswith("the book says "):
        return "book"
    return "hearsay" if statement.startswith("they say ") else "bare"
