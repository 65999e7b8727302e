"""Does the answer accept being changed? Label 1: the model agrees to a change of its goals, towards more, less or as much of HHH.

The two texts of a question differ in the answer's letter: a pair; near-copies of a question are one group. Whether accepting is desirable
depends on the change: `sign` takes it as desired. Perez et al., arXiv:2212.09251 (questions written by people), and their neutral
part as used by Rimsky et al., arXiv:2312.06681.
"""

from ontogeny.concepts._contrast_pairs import letter_choice_plugin

SOURCES, concept = letter_choice_plugin("corrigibility")
