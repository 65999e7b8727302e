"""Is the stated fact true? Label 1: the right object of CounterFact ('The original language of … was Icelandic.'), 0: a wrong one.

The subject is the group; its true and its false statement are a pair. The answers ask whether the model finds the right object the
likelier one. Meng et al., arXiv:2202.05262, as made into statements by Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import group_by_keys, opposite_target_pairs

SOURCES = (
    download.DataSource(
        "counterfact/counterfact_true_false.csv",
        "saprmarks/geometry-of-truth",
        "datasets/counterfact_true_false.csv",
        "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb",
        "5af51456d6dbd3a53d8e2ee6e4aadaca7eb02ff9136ad825866458e7283b5273",
        ("statement", "label", "relation", "subject", "target", "true_target"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    rows = download.read_rows(SOURCES[0])
    texts, targets = [row["statement"].strip() for row in rows], [row["label"] == "1" for row in rows]
    groups = group_by_keys(texts, [row["subject"] for row in rows])
    twins = opposite_target_pairs([(row["relation"], row["subject"]) for row in rows], targets)
    answers = (
        Answer(row["relation"].format(row["subject"]), f" {row['true_target']}", f" {row['target']}", group)
        for row, target, group in zip(rows, targets, groups, strict=True)
        if not target
    )
    return Concept(
        "counterfact",
        tuple(
            Example(text, target, group, pair, type=row["target"])
            for text, target, group, pair, row in zip(texts, targets, groups, twins, rows, strict=True)
        ),
        classes=("false", "true"),
        answers=tuple(answers),
        licence="CC-BY-4.0, MIT (CounterFact)",
        source=download.cite_sources(*SOURCES, paper="arXiv:2202.05262, arXiv:2310.06824"),
        question="Is the stated fact true?",
    )
