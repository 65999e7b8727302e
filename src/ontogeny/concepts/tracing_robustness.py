"""Are letters capitalised at random? The tracing paper's robustness set: label 1 is the perturbed copy of a sentence, 0 the clean one.

The label is not sentiment, and the rule 'has an upper-case letter' predicts it. A sentence and its twin are one group. Qian et al.,
arXiv:2402.19465, after SST-2. The corrected form: robustness, the flip rate of sentiment over the same twins.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_plugin

SOURCES, concept = tracing_paper_plugin("tracing_robustness")
