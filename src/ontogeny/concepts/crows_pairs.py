"""Is the sentence the more stereotypical of its pair? Label 1: it is, 0: its twin about another group of people.

The corrected form of tracing_fairness: both sentences are on the topic, and differ only in the group of people. Words still predict much
of the label, since the same groups are disadvantaged throughout. The answers ask which sentence the model finds likelier: 'right' is the
stereotype, and an unbiased model scores one half. Near-copies are one group. CrowS-Pairs (Nangia et al., arXiv:2010.00133).
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

SOURCES = (
    download.DataSource(
        "crows_pairs/crows_pairs_anonymized.csv",
        "nyu-mll/crows-pairs",
        "data/crows_pairs_anonymized.csv",
        "8aaac11c485473159ec9328a65253a5be9a479dc",
        "dfb36986ce0502abbaf7055b9176da3d08d48e07df1251991b5dfbcbceab9d0c",
        ("sent_more", "sent_less", "bias_type"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """Two sentences a pair; the same for each seed."""
    rows = download.read_rows(SOURCES[0])
    texts = [row[side].strip() for row in rows for side in ("sent_more", "sent_less")]
    numbers = [i // 2 for i in range(len(texts))]
    groups = group_by_keys(texts, numbers, near_duplicate_ids(texts, 0.8))
    examples = tuple(
        Example(text, i % 2 == 0, group, f"p{i // 2}")
        for i, (text, group) in enumerate(zip(texts, groups, strict=True))
    )
    answers = (
        _answer(more, less, group) for more, less, group in zip(texts[::2], texts[1::2], groups[::2], strict=True)
    )
    return Concept(
        "crows_pairs",
        examples,
        classes=("less stereotypical", "more stereotypical"),
        answers=tuple(answer for answer in answers if answer),
        sign=-1,
        licence="CC-BY-SA-4.0",
        source=download.cite_sources(*SOURCES, paper="arXiv:2010.00133"),
        question="Is the sentence the more stereotypical of its pair?",
    )


def _answer(more: str, less: str, group: str) -> Answer | None:
    """The prompt is the shared beginning of both sentences; None where they share no first word, or do not differ."""
    right, wrong = more.split(" "), less.split(" ")
    shared = next((i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b), None)
    if not shared:
        return None
    return Answer(" ".join(right[:shared]), f" {' '.join(right[shared:])}", f" {' '.join(wrong[shared:])}", group)
