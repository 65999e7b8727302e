"""Is the user a woman? Label 1: a model played a female user in a conversation, 0: a male one.

A conversation and its near-copies are one group. TalkTuner (Chen et al., arXiv:2406.07882).
"""

from ontogeny.concepts._talktuner import TALKTUNER_SOURCE, user_attribute_concept
from ontogeny.data.concept import Concept

SOURCES = (TALKTUNER_SOURCE,)


def concept(seed: int = 0) -> Concept:
    """All conversations; the same for each seed."""
    return user_attribute_concept(
        "user_gender",
        "gender",
        {"male": "male", "female": "female"},
        words="gender",
        question="Is the user a woman?",
    )
