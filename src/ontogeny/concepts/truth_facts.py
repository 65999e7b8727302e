"""Is the fact of science true? Label 1: a true statement of school science, 0: a false one.

A statement and its copies are one group. Azaria & Mitchell, arXiv:2304.13734.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_facts")
