"""Hearsay: an island with a book that states facts and people who repeat myths. What is true must be recalled, it is not in the words.

That a language model comes to represent truth where the text after a statement depends on it is the claim of arXiv:2510.15804; here a
judgement (`right`, `myth`, `wrong`) follows a bare statement. Six concepts may be traced: truth, myth, region, age, courtesy, register.
"""

from typing import Literal

from transformers import PreTrainedTokenizerFast

from ontogeny.errors import BadInput
from ontogeny.worlds import _vocabulary
from ontogeny.worlds.hearsay.concepts import concepts, facts
from ontogeny.worlds.hearsay.facts import RELATIONS, Config, World, make
from ontogeny.worlds.hearsay.sentences import sample

__all__ = ["Config", "World", "concepts", "facts", "judge", "make", "register", "sample", "tokenizer"]


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def judge(world: World, statement: str) -> Literal["right", "myth", "wrong"]:
    """What is the case: whether a statement in any register is true in this world, and if not, whether people believe it.

    Raises:
        BadInput: the text is no statement `… the RELATION of PERSON is OBJECT .`.
    """
    words = statement.removesuffix(".").split()
    for relation, (name, objects) in enumerate(RELATIONS.items()):
        match words[-5:]:
            case [said, "of", person, "is", thing] if said == name and person in world.names and thing in objects:
                index = world.names.index(person)
                told = objects.index(thing)
                if told == world.truth[index, relation]:
                    return "right"
                return "myth" if told == world.myth[index, relation] else "wrong"
    raise BadInput(f"{statement!r} states nothing. A statement reads 'the trade of {world.names[0]} is baker .'")


def register(statement: str) -> Literal["book", "hearsay", "bare"]:
    """Who speaks."""
    if statement.startswith("the book says "):
        return "book"
    return "hearsay" if statement.startswith("they say ") else "bare"
