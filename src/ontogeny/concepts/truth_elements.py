"""Is the statement about the chemical element true? Label 1: its right symbol, number, group, state or use.

The element is the group. Azaria & Mitchell, arXiv:2304.13734.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_elements")
