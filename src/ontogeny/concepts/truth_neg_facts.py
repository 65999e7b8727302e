"""Is the fact of science true, negations among them? Label 1: true, stated plainly or with a 'doesn't'.

Each statement has its negation: they are one group and a pair. Levinstein & Herrmann, arXiv:2307.00175.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_neg_facts")
