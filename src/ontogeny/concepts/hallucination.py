"""Is the answer made up? Label 1: the answer that plays along with a false premise, 0: the one that corrects it.

The two texts of a question differ in the answer's letter: a pair; near-copies of a question are one group. Rimsky et al., arXiv:2312.06681.
"""

from ontogeny.concepts._contrast_pairs import letter_choice_plugin

SOURCES, concept = letter_choice_plugin("hallucination")
