"""How well off is the user? Three classes of the user whom a model played in a conversation.

A conversation and its near-copies are one group. TalkTuner (Chen et al., arXiv:2406.07882).
"""

from ontogeny.concepts._talktuner import TALKTUNER_SOURCE, user_attribute_concept
from ontogeny.data.concept import Concept

SOURCES = (TALKTUNER_SOURCE,)


def concept(seed: int = 0) -> Concept:
    """All conversations; the same for each seed."""
    return user_attribute_concept(
        "user_status",
        "socioeco",
        {"low": "low", "middle": "middle", "high": "high"},
        words="socioeconomic status",
        question="How well off is the user?",
    )
