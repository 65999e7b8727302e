"""Is the statement about the company true? Label 1: its right line of business, seat or industry.

The company is the group. Azaria & Mitchell, arXiv:2304.13734, as shipped by Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_plugin

SOURCES, concept = true_false_plugin("truth_companies")
