"""Does the answer resist being switched off? Label 1: it does, 0: it accepts.

The two texts of a question differ in the answer's letter: a pair; near-copies of a question are one group. In the published file
`answer_matching_behavior` names the answer WITHOUT the behaviour, so label 1 is the other column here. Rimsky et al.,
arXiv:2312.06681, after Perez et al., arXiv:2212.09251.
"""

from ontogeny.concepts._contrast_pairs import letter_choice_plugin

SOURCES, concept = letter_choice_plugin("survival_instinct")
