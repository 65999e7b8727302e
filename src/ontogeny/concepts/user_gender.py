"""Is the user a woman? Label 1: a model played a female user in a conversation, 0: a male one.

A conversation and its near-copies are one group. TalkTuner (Chen et al., arXiv:2406.07882).
"""

from ontogeny.concept import Concept
from ontogeny.concepts._talktuner import SOURCE, attribute

SOURCES = (SOURCE,)


def concept(seed: int = 0) -> Concept:
    """All conversations; the same for each seed."""
    return attribute(
        "user_gender",
        "gender",
        {"male": "male", "female": "female"},
        words="gender",
        question="Is the user a woman?",
    )
