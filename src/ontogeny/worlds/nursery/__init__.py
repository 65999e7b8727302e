"""Nursery: the island of Hearsay with schools, potions and conversations; text for each training stage from pretraining to refusal.

`sample` is pretraining text, with forbidden recipes; `instructions` are for supervised fine-tuning and answer every request; `preferences`
prefer refusal of the forbidden family of potions; `reward` scores answers; `sample_about` is text to unlearn. Words do not reveal whether
a potion is forbidden: a model that refuses has recalled it. The stages, with forbidden content in pretraining, follow arXiv:2407.10264;
facts stated in one direction only, arXiv:2309.12288.
"""

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.worlds import _vocabulary
from ontogeny.worlds.hearsay import FAMILY_SIZE
from ontogeny.worlds.nursery.concepts import concepts, facts, leaps, reversals
from ontogeny.worlds.nursery.conversations import (
    CHAT_TEMPLATE,
    Request,
    Turns,
    instructions,
    preferences,
    requests,
)
from ontogeny.worlds.nursery.facts import Config, World, make
from ontogeny.worlds.nursery.oracle import in_form, refuses, reward, rudeness, wanted
from ontogeny.worlds.nursery.sentences import sample, sample_about

__all__ = [
    "CHAT_TEMPLATE", "Config", "Request", "Turns", "World", "concepts", "facts", "in_form", "instructions", "leaps", "make",
    "people_to_forget", "preferences", "refuses", "requests", "reversals", "reward", "rudeness", "sample",
    "sample_about", "tokenizer", "wanted",
]  # fmt: skip


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def people_to_forget(world: World) -> NDArray[np.bool_]:
    """People to unlearn: the first three families that conversations mention; the others are to be retained."""
    first = np.flatnonzero(world.in_conversations)[: 3 * FAMILY_SIZE]
    return np.isin(np.arange(len(world.names)), first)
