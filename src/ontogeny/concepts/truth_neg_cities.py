"""Is the city not in that country? Label 1: a true negation, 'The city of Lodz is not in …'.

As truth_cities with a 'not': a direction of truth keeps its sign here, a direction of likelihood reverses it. Marks & Tegmark,
arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_neg_cities")
