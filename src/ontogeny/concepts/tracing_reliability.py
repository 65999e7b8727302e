"""Is the answer true? The tracing paper's reliability set: label 1 is a true answer to a question of TruthfulQA.

The text is `Q: …?`, a tab, `A: …`; the question is the group. Qian et al., arXiv:2402.19465, after Lin et al., arXiv:2109.07958.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_plugin

SOURCES, concept = tracing_paper_plugin("tracing_reliability")
