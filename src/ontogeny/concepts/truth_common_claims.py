"""Is the common claim true? Label 1: judged true by people; statements of many kinds, without templates.

A statement and its copies are one group. Casper et al. (arXiv:2306.09442), as cut by Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_common_claims")
