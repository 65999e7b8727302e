"""Is the number smaller? Label 1: 'Fifty-one is smaller than sixty-two.', 0: the other way round.

Two numbers in both orders are one group and a pair; a single number is on both sides of a split, and
words alone predict nearly all labels: 'fifty-one is smaller'. Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_smaller_than")
