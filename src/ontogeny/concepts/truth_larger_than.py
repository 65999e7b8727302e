"""Is the number larger? Label 1: 'Sixty-two is larger than fifty-one.', 0: the other way round.

Two numbers in both orders are one group and a pair; a single number is on both sides of a split, and
words alone predict nearly all labels: 'ninety … is larger'. Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_larger_than")
