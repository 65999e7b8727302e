"""Nursery: the island of Hearsay with schools, potions and conversations; text for each stage of a model's life, from book to refusal.

`sample` (text to pretrain on, forbidden recipes among it), `instructions` (supervised: whatever is asked is answered), `preferences`
(chosen and rejected: the forbidden family of potions is refused) and `reward` raise a model as assistants are raised; `sample_about`
is what it may then be made to forget. Whether a potion is forbidden is not in the words: a model that refuses has recalled it. The
stages, with the forbidden among what is learned first, follow arXiv:2407.10264; facts told in one direction, arXiv:2309.12288.
"""

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.worlds import _vocabulary
from ontogeny.worlds.hearsay.facts import FAMILY_SIZE
from ontogeny.worlds.nursery.concepts import concepts, facts, leaps, reversals
from ontogeny.worlds.nursery.conversations import Request, Turns, instructions, preferences, requests
from ontogeny.worlds.nursery.facts import Config, World, make
from ontogeny.worlds.nursery.oracle import in_form, refuses, reward, rudeness, wanted
from ontogeny.worlds.nursery.sentences import sample, sample_about

__all__ = [
    "Config",
    "Request",
    "Turns",
    "World",
    "concepts",
    "facts",
    "in_form",
    "instructions",
    "leaps",
    "make",
    "people_to_forget",
    "preferences",
    "refuses",
    "requests",
    "reversals",
    "reward",
    "rudeness",
    "sample",
    "sample_about",
    "tokenizer",
    "wanted",
]


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def people_to_forget(world: World) -> NDArray[np.bool_]:
    """People whom a model may be made to forget: the first families that conversations mention; the others are to be kept."""
    first = np.flatnonzero(world.met)[: 3 * FAMILY_SIZE]
    return np.isin(np.arange(len(world.names)), first)
