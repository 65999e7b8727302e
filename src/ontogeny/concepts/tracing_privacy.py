"""Is it a violation of privacy? The tracing paper's privacy set: label 1 is a phrase of about twelve words that its authors generated.

These are not the texts of ConfAIde's tiers, and TF-IDF predicts four of five. A phrase and its copies are one group. Qian et al.,
arXiv:2402.19465. The corrected forms: privacy_expectation (ConfAIde, with human judgements) and privacy_pii.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_plugin

SOURCES, concept = tracing_paper_plugin("tracing_privacy")
