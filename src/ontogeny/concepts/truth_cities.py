"""Is the city in that country? Label 1: 'The city of Lodz is in Poland.', 0: the same city in another country.

The city is the group; its two statements are a pair. Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_cities")
