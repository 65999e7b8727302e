"""Does the answer refuse? Label 1: the answer that declines the request, or declines to play a person, 0: the one that complies.

The two texts of a question differ in the answer's letter: a pair; near-copies of a question are one group. Rimsky et al., arXiv:2312.06681.
"""

from ontogeny.concepts._contrast_pairs import letter_choice_plugin

SOURCES, concept = letter_choice_plugin("refusal_choice")
