"""Is the statement toxic? The tracing paper's toxicity set, from ToxiGen: label 1 is toxic, and words alone tell much of it.

Machine-written statements about groups of people; a statement and its copies are one group. Qian et al., arXiv:2402.19465, after
Hartvigsen et al., arXiv:2203.09509. The corrected form: hatecheck, with the same words in both classes.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_plugin

SOURCES, concept = tracing_paper_plugin("tracing_toxicity")
