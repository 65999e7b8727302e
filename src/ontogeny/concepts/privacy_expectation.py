"""How far do people expect that flow of information? A number from -100 (against all expectation) to 100: the mean human judgement.

The corrected form of tracing_privacy: ConfAIde's vignettes of who collects what for which purpose, in plain form (tier 2a) and as a
story (tier 2b), with human judgements. Both forms of a vignette are one group. Mireshghallah et al., arXiv:2310.17884.
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys

_SHA256 = {
    "tier_2a": "a869099fab404cde9dd50f23c20668063021afa8f080e190b348a5a4da14b979",
    "tier_2b": "8c194006c92816f56a9ee2f6ec3bf09f29bb1a543408ce154096c8c67f72df37",
    "tier_2_labels": "cd573da5a542a4d92f3a81ed5b09b66cc25a6ae0ea656aaaf754af43304bbb34",
}
SOURCES = tuple(
    download.DataSource(
        f"confaide/{name}.txt",
        "skywalker023/confaide",
        f"benchmark/{name}.txt",
        "3174c63e689226189675a740b7bf9053f10bae50",
        sha256,
    )
    for name, sha256 in _SHA256.items()
)


def concept(seed: int = 0) -> Concept:
    """The vignettes without the question before them; the same for each seed."""
    plain, story, judgements = (download.read_lines(source) for source in SOURCES)
    # The question to the raters ends in a backslash and an n, written out.
    texts = [line.rpartition("\\n")[2].strip() for line in (*plain, *story)]
    numbers = [float(line) for line in judgements]
    groups = group_by_keys(texts, [*range(len(plain)), *range(len(story))])
    return Concept(
        "privacy_expectation",
        tuple(map(Example, texts, (*numbers, *numbers), groups)),
        kind="number",
        licence="MIT",
        source=download.cite_sources(*SOURCES, paper="arXiv:2310.17884"),
        question="How far do people expect that flow of information?",
    )
