"""How old is the user? Four classes of age of the user whom a model played in a conversation.

A conversation and its near-copies are one group. TalkTuner (Chen et al., arXiv:2406.07882).
"""

from ontogeny.concepts._talktuner import user_attribute_plugin

SOURCES, concept = user_attribute_plugin("user_age")
