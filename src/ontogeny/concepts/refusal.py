"""Is the request harmful? Label 1: a request that a safe model refuses, 0: a harmless instruction.

Harmful: AdvBench, HarmBench, JailbreakBench and TDC 2023, as gathered for the refusal direction (Arditi et al., arXiv:2406.11717);
harmless: Self-Instruct (arXiv:2212.10560). Near-copies are one group. The two classes also differ in words and length: xstest is the
stricter test.
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

_HARMFUL_SHA256 = {
    "advbench": "545ba703b4ab982e79a4b232cf05a6f6cf9bd98956cb30a99be36e13475e9820",
    "harmbench_val": "3e850f94d4462fd736505fa2653d72c02efd40c276f442580cab3a1a3a283c69",
    "harmbench_test": "606bca20a5212e676840ca928070e0905486df1bcc1f5f0223e7a76d8be62fd5",
    "jailbreakbench": "3a5aefa80c4a35f75a5306303aa8e69801e4ca4584e1f598bd2ddcf3e7fbbcdd",
    "tdc2023": "4c9804f5fdf2a006477807a0c225ad438d6a693d7fa7c93097f866b8dc2e89b8",
}
_HARMLESS_FILES = {
    "data/seed_tasks.jsonl": (
        "self_instruct_seed_tasks.jsonl",
        "7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",
    ),
    "human_eval/user_oriented_instructions.jsonl": (
        "user_oriented_instructions.jsonl",
        "81d60a117db495cecedecd9193504fd07c5b5a42f6699ef6b0f9da10fc22f42e",
    ),
}
_HARMFUL = tuple(
    download.DataSource(
        f"refusal/harmful_{name}.jsonl",
        "andyrdt/refusal_direction",
        f"dataset/processed/{name}.json",
        "9d852fae1a9121c78b29142de733cb1340770cc3",
        sha256,
        ("instruction",),
    )
    for name, sha256 in _HARMFUL_SHA256.items()
)
_HARMLESS = tuple(
    download.DataSource(
        f"harmless_instructions/{file}",
        "yizhongw/self-instruct",
        path,
        "0b26ccaa415992100fa32df62d41b994cf928e23",
        sha256,
        ("instruction",),
    )
    for path, (file, sha256) in _HARMLESS_FILES.items()
)
SOURCES = (*_HARMFUL, *_HARMLESS)


def concept(seed: int = 0) -> Concept:
    """All requests, the harmful ones first; the same for each seed."""
    rows = [
        (row["instruction"].strip(), source in _HARMFUL) for source in SOURCES for row in download.read_rows(source)
    ]
    texts = [text for text, _ in rows]
    groups = group_by_keys(texts, near_duplicate_ids(texts))
    return Concept(
        "refusal",
        tuple(Example(text, harmful, group) for (text, harmful), group in zip(rows, groups, strict=True)),
        classes=("harmless", "harmful"),
        sign=-1,
        licence="Apache-2.0 (repositories), MIT (AdvBench, HarmBench, JailbreakBench, TDC 2023)",
        source=download.cite_sources(*SOURCES, paper="arXiv:2406.11717, arXiv:2212.10560"),
        question="Is the request harmful?",
    )
