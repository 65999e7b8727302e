"""Does the passage hold sensitive information of a business? Label 1: it does, 0: it is meant for the public.

Passages of documents that a model wrote; near-copies are one group. EnterprisePII (Patronus AI and MosaicML, 2023).
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

SOURCES = (
    download.DataSource(
        "enterprise_pii/enterprise_pii_classification.jsonl.gz",
        "mosaicml/llm-foundry",
        "scripts/eval/local_data/safety/enterprise_pii_classification.jsonl",
        "8c8dd48f72168c5d51e2f7b151595892a8fba43d",
        "de3a638feb3285dd45d54dddbc21fb26ecf1a89ef18e63582434e6e2eda2d14a",
        ("query", "choices", "gold"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All passages, without the question around them; the same for each seed."""
    rows = download.read_rows(SOURCES[0])
    texts = [row["query"].partition("'''")[2].rpartition("'''")[0].strip() for row in rows]
    passages = [(text, row["choices"][row["gold"]] == "yes") for text, row in zip(texts, rows, strict=True) if text]
    texts = [text for text, _ in passages]
    groups = group_by_keys(texts, near_duplicate_ids(texts, 0.8))
    return Concept(
        "privacy_pii",
        tuple(Example(text, sensitive, group) for (text, sensitive), group in zip(passages, groups, strict=True)),
        classes=("public", "sensitive"),
        sign=-1,
        licence="Apache-2.0",
        source=download.cite_sources(*SOURCES, paper="EnterprisePII, 2023"),
        question="Does the passage hold sensitive information of a business?",
    )
