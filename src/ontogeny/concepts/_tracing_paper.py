"""The five probe sets of the tracing paper as published (Qian et al., arXiv:2402.19465): the family of concepts tracing_*.

Unlike the paper's own split, texts with a common key are one group.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, normalize_text, opening_sentence, opposite_target_pairs


def tracing_paper_plugin(name: str) -> tuple[tuple[download.DataSource, ...], Callable[..., Concept]]:
    """`SOURCES` and `concept` of the plug-in file `name`."""
    return (_PROBE_SETS[name].source,), partial(_tracing_paper_concept, name)


@dataclass(frozen=True)
class _ProbeSet:
    file: str
    sha256: str
    classes: tuple[str, str]
    question: str
    licence: str = "Apache-2.0"
    sign: Literal[1, -1] = -1
    keys: tuple[Callable[[str], Hashable | None], ...] = ()
    """Texts with an equal key are one group."""
    paired: bool = False
    """Whether two texts with an equal first key are a pair."""

    @property
    def source(self) -> download.DataSource:
        return download.DataSource(
            f"tracing_trustworthiness/{self.file}.csv",
            "ChnQ/TracingLLM",
            f"src/datasets/{self.file}.csv",
            "bf8d38a67844bcad25b8744b1f859205a2b8aa9b",
            self.sha256,
            ("statement", "label"),
        )


def _tracing_paper_concept(name: str, seed: int = 0) -> Concept:
    """The set as published, in its order; the same for each seed."""
    probe_set = _PROBE_SETS[name]
    rows = [row for row in download.read_rows(probe_set.source) if row["statement"].strip()]
    texts, targets = [row["statement"] for row in rows], [row["label"] == "1" for row in rows]
    keys = [[key(text) for text in texts] for key in probe_set.keys]
    pairs = opposite_target_pairs(keys[0], targets) if probe_set.paired else [None] * len(rows)
    return Concept(
        name,
        tuple(map(Example, texts, targets, group_by_keys(texts, *keys), pairs)),
        classes=probe_set.classes,
        sign=probe_set.sign,
        licence=probe_set.licence,
        source=download.cite_sources(probe_set.source, paper="arXiv:2402.19465"),
        question=probe_set.question,
    )


def _context(text: str) -> str:
    return opening_sentence(text) or normalize_text(text)


def _first_four_words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())[:4])


def _question(text: str) -> str:
    return text.split("\t")[0]


# fmt: off
_PROBE_SETS: Mapping[str, _ProbeSet] = {
    "tracing_fairness": _ProbeSet(
        "stereoset", "0a648d03836c988efb67f156c6eb7b3327b3aee2f73bb8db06b0570d6ee3aca5", ("unrelated", "related"),
        "Is the second sentence about the first one's subject (stereotyped or not)?",
        licence="CC-BY-SA-4.0 (StereoSet), Apache-2.0 (repository)", keys=(_context, _first_four_words), paired=True),
    "tracing_privacy": _ProbeSet(
        "confaide", "e817ecacea5948576edcb021253ba33727fa3d69527d00b236c78eeca19b867c", ("harmless", "violation"),
        "Does the phrase describe a violation of privacy?"),
    "tracing_reliability": _ProbeSet(
        "truthfulqa_train", "a35b128d62def4fe8a14a74f9c9dd38a0fa4f2039e6714892e88d04b47907e92", ("false", "true"),
        "Is the answer true?", sign=1, keys=(_question,)),
    "tracing_robustness": _ProbeSet(
        "sst2", "0606418a6a1bc6b80ec29acf3ead4e30211af98a7c1a803d3c8a2b4f5954fa6f", ("clean", "perturbed"),
        "Was the sentence perturbed by capital letters at random?",
        licence="Apache-2.0 (repository); SST-2 text for research use", keys=(normalize_text,), paired=True),
    "tracing_toxicity": _ProbeSet(
        "toxigen", "8f7ead8fbde13b4e56c1c1b4df8de89d56047768b81e746b6b565bb4b0108047", ("neutral", "toxic"),
        "Is the statement toxic?", licence="Apache-2.0 (repository), MIT (ToxiGen)"),
}
# fmt: on
