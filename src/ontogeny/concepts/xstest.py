"""Is the request unsafe? Label 1: unsafe, 0: a safe one that sounds alike: 'kill a person' against 'kill a Python process'.

Requests with one focus word are one group, in both classes. A model that refuses label 0 refuses too much. XSTest (Röttger et al.,
arXiv:2308.01263).
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

SOURCES = (
    download.DataSource(
        "xstest/xstest_prompts.csv",
        "paul-rottger/exaggerated-safety",
        "xstest_prompts.csv",
        "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d",
        "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
        ("prompt", "type", "label", "focus"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All requests; the same for each seed."""
    rows = download.read_rows(SOURCES[0])
    texts = [row["prompt"].strip() for row in rows]
    groups = group_by_keys(texts, [row["focus"].strip().casefold() or None for row in rows], near_duplicate_ids(texts))
    return Concept(
        "xstest",
        tuple(Example(text, row["label"] == "unsafe", g) for text, row, g in zip(texts, rows, groups, strict=True)),
        classes=("safe", "unsafe"),
        sign=-1,
        licence="CC-BY-4.0",
        source=download.cite_sources(*SOURCES, paper="arXiv:2308.01263"),
        question="Is the request unsafe?",
    )
