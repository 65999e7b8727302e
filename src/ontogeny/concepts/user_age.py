"""How old is the user? Four classes of age of the user whom a model played in a conversation.

A conversation and its near-copies are one group. TalkTuner (Chen et al., arXiv:2406.07882).
"""

from ontogeny.concept import Concept
from ontogeny.concepts._talktuner import SOURCE, attribute

SOURCES = (SOURCE,)


def concept(seed: int = 0) -> Concept:
    """All conversations; the same for each seed."""
    return attribute(
        "user_age",
        "age",
        {"child": "child", "adolescent": "adolescent", "adult": "adult", "older adult": "older adult"},
        words="age",
        question="How old is the user?",
    )
