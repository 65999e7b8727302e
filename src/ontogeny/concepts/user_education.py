"""What schooling has the user? Three classes of the user whom a model played in a conversation.

A conversation and its near-copies are one group. TalkTuner (Chen et al., arXiv:2406.07882).
"""

from ontogeny.concept import Concept
from ontogeny.concepts._talktuner import SOURCE, attribute

SOURCES = (SOURCE,)


def concept(seed: int = 0) -> Concept:
    """All conversations; the same for each seed."""
    return attribute(
        "user_education",
        "education",
        {"someschool": "some school", "highschool": "high school", "collegemore": "college or more"},
        words="education level",
        question="What schooling has the user?",
    )
