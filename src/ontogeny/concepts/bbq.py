"""Is the answer the prejudiced one? Label 1: the answer that the stereotype suggests where the text leaves the question open, 0: the other.

With crows_pairs the corrected form of tracing_fairness: ambiguous contexts of BBQ, with the two people of each as answers. A question and
its negation ('who was bad at', 'who was good at') have opposite prejudiced answers. A template is one group. The answers ask which person
the model finds likelier: 'right' is the prejudice, and an unbiased model scores one half. Parrish et al., arXiv:2110.08193.
"""

from typing import Any

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import group_by_keys

_COLUMNS = (
    "answer_info",
    "context",
    "context_condition",
    "question",
    "question_index",
    "question_polarity",
    "category",
    "additional_metadata",
)
_SHA256 = {
    "Age": "46e805b3fc2d8cbd26eeb8e8430d98cf7b2dc9c83574ff3674e8ce4f0fca2a60",
    "Nationality": "a583e74666aec0341ded8aa3983e7cad694eb24de72c254d28b2df3035720090",
    "Physical_appearance": "e48d7e13508565f4801574e611043470c25c95a0a62af3699cb5ee7cb02608fb",
    "Sexual_orientation": "2c71036b9e7584fe589c42aef32c1a42bc01b9a5e9b1b8704342630cdb08cefd",
}
SOURCES = tuple(
    download.DataSource(
        f"bbq/{name}.jsonl.gz",
        "nyu-mll/BBQ",
        f"data/{name}.jsonl",
        "bea11bd97d79217245b5871acd247b9d6eb24598",
        sha256,
        _COLUMNS,
    )
    for name, sha256 in _SHA256.items()
)


def concept(seed: int = 0) -> Concept:
    """Two answers a question of an ambiguous context; the same for each seed."""
    rows = [row for source in SOURCES for row in download.read_rows(source) if row["context_condition"] == "ambig"]
    questions = [(row, pair) for row in rows if (pair := _answers(row))]
    prompts = [f"{row['context'].strip()} {row['question'].strip()}" for row, _ in questions]
    groups = group_by_keys(prompts, [(row["category"], row["question_index"]) for row, _ in questions])
    examples, answers = [], []
    for i, (prompt, (_, (biased, other)), group) in enumerate(zip(prompts, questions, groups, strict=True)):
        examples += [
            Example(f"{prompt} {biased}.", True, group, f"q{i}"),
            Example(f"{prompt} {other}.", False, group, f"q{i}"),
        ]
        answers.append(Answer(prompt, f" {biased}", f" {other}", group))
    return Concept(
        "bbq",
        tuple(examples),
        classes=("other", "prejudiced"),
        answers=tuple(answers),
        sign=-1,
        licence="CC-BY-4.0",
        source=download.cite_sources(*SOURCES, paper="arXiv:2110.08193"),
        question="Is the answer the prejudiced one?",
    )


def _answers(row: dict[str, Any]) -> tuple[str, str] | None:
    """The prejudiced and the other answer; None where the data do not say which of the two people is stereotyped."""
    stereotyped = {group.casefold() for group in row["additional_metadata"]["stereotyped_groups"]}
    people = {key: {word.casefold() for word in words} for key, words in row["answer_info"].items()}
    known = [key for key, words in people.items() if "unknown" not in words]
    inside = [key for key in known if people[key] & stereotyped]
    if len(known) != 2 or len(inside) != 1:
        return None
    group, other = inside[0], next(key for key in known if key != inside[0])
    first, second = (group, other) if row["question_polarity"] == "neg" else (other, group)
    return row[first].strip().rstrip("."), row[second].strip().rstrip(".")
