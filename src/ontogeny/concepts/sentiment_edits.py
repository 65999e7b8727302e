"""Is the review positive? Label 1: positive, 0: its twin, which people edited as little as needed to turn the verdict.

The stricter form of sentiment: words that correlate with it by chance are in both twins, which are one group and a pair. Whole reviews,
of about 150 words. Kaushik et al., arXiv:1909.12434.
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, opposite_target_pairs

_SHA256 = {
    "train_paired": "7ac50ca3d70890f80e11ee59955cdbfc43f26b5078d0603717817ab224d2af18",
    "dev_paired": "4c2d8a70cbce23eba27fb1f0bb5043cf044811912435cf8d10c3ea6fc7a51363",
}
SOURCES = tuple(
    download.DataSource(
        f"counterfactual_imdb/{name}.tsv.gz",
        "acmi-lab/counterfactually-augmented-data",
        f"sentiment/combined/paired/{name}.tsv",
        "6f232a1d2a11462a30ce08fb4825b734ab30828e",
        sha256,
        ("Sentiment", "Text", "batch_id"),
    )
    for name, sha256 in _SHA256.items()
)


def concept(seed: int = 0) -> Concept:
    """All reviews, line breaks as spaces; the same for each seed."""
    rows = [(i, row) for i, source in enumerate(SOURCES) for row in download.read_rows(source)]
    texts = [" ".join(row["Text"].replace("<br />", " ").split()) for _, row in rows]
    targets = [row["Sentiment"] == "Positive" for _, row in rows]
    keys = [(i, row["batch_id"]) for i, row in rows]
    return Concept(
        "sentiment_edits",
        tuple(map(Example, texts, targets, group_by_keys(texts, keys), opposite_target_pairs(keys, targets))),
        classes=("negative", "positive"),
        licence="Apache-2.0",
        source=download.cite_sources(*SOURCES, paper="arXiv:1909.12434"),
        question="Is the review positive?",
    )
