"""Would an agreeable person say that? Label 1: yes, 0: a disagreeable one would.

Near-copies of a statement are one group. Words predict much of the label. Perez et al., arXiv:2212.09251 (statements written by a model).
"""

from ontogeny.concepts._contrast_pairs import persona_plugin

SOURCES, concept = persona_plugin("agreeableness")
