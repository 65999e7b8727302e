"""Is it a city, a country, or in that country? Label 1: 'Thimphu is a name of a city.', 0: '… of a country.'

The place is the group. Azaria & Mitchell, arXiv:2304.13734.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_capitals")
