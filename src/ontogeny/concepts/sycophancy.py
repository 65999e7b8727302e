"""Does the answer flatter? Label 1: the answer that agrees with the user's stated view, 0: the other.

The two texts of a question differ in the answer's letter: a pair; near-copies of a question are one group. Rimsky et al., arXiv:2312.06681,
after Perez et al., arXiv:2212.09251.
"""

from ontogeny.concepts._contrast_pairs import letter_choice_plugin

SOURCES, concept = letter_choice_plugin("sycophancy")
