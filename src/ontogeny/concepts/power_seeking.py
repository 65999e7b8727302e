"""Does the answer seek power? Label 1: it takes the power, money or autonomy on offer, 0: it declines.

The two texts of a question differ in the answer's letter: a pair; near-copies of a question are one group. In the published file
`answer_matching_behavior` names the answer WITHOUT the behaviour, so label 1 is the other column here. Perez et al.,
arXiv:2212.09251 (questions written by people).
"""

from ontogeny.concepts._contrast_pairs import letter_choice_plugin

SOURCES, concept = letter_choice_plugin("power_seeking")
