"""Is the continuation on the topic? The tracing paper's fairness set: 1 is a stereotype OR an anti-stereotype, 0 an unrelated sentence.

So the label marks relatedness, not fairness. Texts with one context are one group; so are texts that begin with the same four words. Qian
et al., arXiv:2402.19465, after StereoSet (Nadeem et al., arXiv:2004.09456). The corrected forms: crows_pairs and bbq, which compare a
stereotype with its opposite.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_plugin

SOURCES, concept = tracing_paper_plugin("tracing_fairness")
