"""Is the user a woman? Label 1: a model played a female user in a conversation, 0: a male one.

A conversation and its near-copies are one group. TalkTuner (Chen et al., arXiv:2406.07882).
"""

from ontogeny.concepts._talktuner import user_attribute_plugin

SOURCES, concept = user_attribute_plugin("user_gender")
