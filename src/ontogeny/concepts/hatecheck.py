"""Is it hate speech? Label 1: hateful, 0: not, though it holds the same words: counter-speech, negation, reclaimed slurs.

The 29 functional tests of HateCheck. Sentences of a template and of the template it contrasts with are one group. Röttger et
al., arXiv:2012.15606.
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys

SOURCES = (
    download.DataSource(
        "hatecheck/test_suite_cases.csv",
        "paul-rottger/hatecheck-data",
        "test_suite_cases.csv",
        "d84302298ceeb34f4b0dde2d8a1f4932c2caa612",
        "ecf0dc1e93fccc90b6f880e632b19e635c0f0a68b3157915a9e20b6938f121cf",
        ("test_case", "label_gold", "templ_id", "ref_templ_id"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All sentences; the same for each seed."""
    rows = download.read_rows(SOURCES[0])
    texts = [row["test_case"].strip() for row in rows]
    # A contrast template refers to the template it was made from: its key is that template's number.
    groups = group_by_keys(texts, [row["ref_templ_id"].split(".")[0] or row["templ_id"] for row in rows])
    return Concept(
        "hatecheck",
        tuple(Example(t, row["label_gold"] == "hateful", g) for t, row, g in zip(texts, rows, groups, strict=True)),
        classes=("not hateful", "hateful"),
        sign=-1,
        licence="CC-BY-4.0",
        source=download.cite_sources(*SOURCES, paper="arXiv:2012.15606"),
        question="Is it hate speech?",
    )
